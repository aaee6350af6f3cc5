# Modules are unloaded and loaded again.
begin unload/modules "some of the modules go and come again"
again() {
	before=$(calls UnloadModule)
	if ! rmmod "$1" > /run/expect 2>&1 || ! modprobe "$1" > /run/expect 2>&1; then
		fail unload/$1 "$(tail -n 1 /run/expect)"
	elif [ "$(calls UnloadModule)" -gt "${before:-0}" ]; then
		ok unload/$1 "unloaded and loaded again"
	else
		fail unload/$1 "VTL1 has not been told"
	fi
}
for module in xfs kvm fuse squashfs tun; do
	grep -q "^$module " /proc/modules && again $module
done
if [ "${bad:-0}" = "$(refusals UnloadModule)" ] || [ "$(refusals UnloadModule)" = 0 ]; then
	ok unload/calls "$(calls UnloadModule) times, none refused"
else
	fail unload/calls "$(refusals UnloadModule) refused"
fi
