# A key that the machine's owner has signed becomes a secondary key, and a module signed with it loads.
begin secondary/key "a key by the machine's owner, and a module signed with it"
if [ ! -f /lib/vtl0/owner.der ]; then
	open secondary/key "there is no owner's certificate in this initramfs"
else
	refused secondary/before "the module does not load before" insmod /lib/vtl0/secondary/module.ko
	expect secondary/key "the key is added to Linux' secondary keys" vtl0-tool key .secondary_trusted_keys /lib/vtl0/secondary/key.x509
	if [ "$(calls CopySecondaryKey) $(refusals CopySecondaryKey)" = "1 0" ]; then
		ok secondary/vtl1 "$(logged "vtl0: the key")"
	else
		fail secondary/vtl1 "$(logged "vtl0: the key")"
	fi
	expect secondary/module "the module loads" insmod /lib/vtl0/secondary/module.ko
fi
