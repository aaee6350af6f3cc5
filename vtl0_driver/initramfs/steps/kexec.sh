# A kernel for kexec is loaded, replaced and unloaded. It is the distribution's own.
begin kexec/image "the distribution's kernel as an image for kexec"
verified() {
	if "$@" > /tmp/expect 2>&1; then
		ok kexec/$name "$text: $(logged "vtl0: .*image")"
	else
		fail kexec/$name "$text: $(tail -n 1 /tmp/expect); $(logged "vtl0: .*image"); $(tail -n 1 $DEBUG/log)"
	fi
}
name=load text="loaded" verified vtl0-tool kexec /lib/vtl0/vmlinuz "console=ttyS0 first"
name=replace text="replaced by another" verified vtl0-tool kexec /lib/vtl0/vmlinuz "console=ttyS0 second"
name=unload text="unloaded" verified vtl0-tool kexec-unload
if [ "$(cat /sys/kernel/kexec_loaded)" = 0 ]; then ok kexec/gone "no image is loaded"; else fail kexec/gone "an image is left"; fi
