# VTL1 is started, and guards this Linux. Without it no other step has a meaning.
begin boot/driver "the driver starts VTL1 on $(nproc) processors and hands over kernel data and memory"
loader=$(word vtl0.loader)
owner=
[ -f /lib/vtl0/owner.der ] && owner=owner=/lib/vtl0/owner.der
if insmod /vtl0.ko "region=$(word vtl0.region)" "loader=${loader:-g3}" $owner > /tmp/expect 2>&1; then
	ok boot/driver "$(uname -r), loader ${loader:-g3}"
else
	# The first line says why; busybox tries twice.
	fail boot/driver "$(dmesg | grep "vtl0: " | head -n 1 | sed 's/^\[[^]]*\] //'); $(tail -n 1 /tmp/expect)"
	break
fi
if [ "$(calls LockRegs)" = "$(nproc)" ]; then
	ok boot/locks "the registers of $(nproc) processors are locked"
else
	fail boot/locks "LockRegs: $(calls LockRegs) calls of $(nproc) processors"
fi
for call in Query LoadKData ProtectMemory AllocateRingbufferMemory SignalEndOfBoot; do
	if [ "$(calls $call) $(refusals $call)" = "1 0" ]; then
		ok boot/$call "accepted"
	else
		fail boot/$call "$(grep $call $DEBUG/calls || echo "not called")"
	fi
done
if grep -q "end of boot" $DEBUG/log; then
	ok boot/ring "$(grep "end of boot" $DEBUG/log | tail -n 1)"
else
	fail boot/ring "VTL1's log does not have the end of boot"
fi
