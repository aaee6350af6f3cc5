# Processors that come after the driver, before the end of boot (maxcpus= and vtl0.end_of_boot=0 on the command line).
begin late/processors "processors that come before the end of boot"
for cpu in /sys/devices/system/cpu/cpu[1-9]*; do
	[ "$(cat "$cpu/online")" = 1 ] && continue
	name=${cpu##*/}
	expect late/$name "$name comes online" sh -c "echo 1 > $cpu/online"
	if [ "$(calls LockRegs)" = "$(nproc)" ]; then
		ok late/$name-locks "the registers of $(nproc) processors are locked"
	else
		fail late/$name-locks "LockRegs: $(calls LockRegs) calls of $(nproc) processors"
	fi
done
expect late/end "the boot ends" sh -c "echo 1 > $DEBUG/end_of_boot"
