# The distribution's own kernel is loaded as a crash image and as an image for kexec, replaced and unloaded.
begin kexec/image "the distribution's kernel as a crash image and for kexec"

# Whoever owns memory that the driver has handed over owns it for good, and Linux 6.12 puts images to the end of memory, where
# code of the kernel's lies that was allocated last: VTL1 then refuses the destination.
image() {
	local name=$1 text=$2
	shift 2
	if "$@" > /run/expect 2>&1; then
		ok kexec/$name "$text"
	elif tail -n 1 $DEBUG/log | grep -q "KexecValidate: frame at .* belongs to"; then
		open kexec/$name "$text: refused, for Linux puts it over sealed memory: $(tail -n 1 $DEBUG/log)"
	else
		fail kexec/$name "$text: $(tail -n 1 /run/expect); $(tail -n 1 $DEBUG/log)"
	fi
}

kernel=/lib/vtl0/vmlinuz
if [ "$(cat /sys/kernel/kexec_crash_size)" -gt 0 ]; then
	expect kexec/crash-load "a crash image is loaded" vtl0-tool crash $kernel "console=ttyS0 first"
	expect kexec/crash-replace "and replaced" vtl0-tool crash $kernel "console=ttyS0 second"
	expect kexec/crash-unload "and unloaded" vtl0-tool crash-unload
else
	open kexec/crash-load "no memory is reserved for a crash image (crashkernel=)"
fi
image load "an image for kexec is loaded" vtl0-tool kexec $kernel "console=ttyS0 first"
image replace "and replaced" vtl0-tool kexec $kernel "console=ttyS0 second"
expect kexec/unload "and unloaded" vtl0-tool kexec-unload
if [ "$(cat /sys/kernel/kexec_loaded /sys/kernel/kexec_crash_loaded | tr -d '\n')" = 00 ]; then
	ok kexec/gone "no image is left; KexecValidate: $(calls KexecValidate) calls"
else
	fail kexec/gone "an image is left"
fi
