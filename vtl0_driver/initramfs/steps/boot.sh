# VTL1 is started, and guards this Linux.
begin boot/driver "the driver starts VTL1 on $(nproc) processors and hands over kernel data and memory"
owner=
[ -f /lib/vtl0/owner.der ] && owner=owner=/lib/vtl0/owner.der
loader=$(word vtl0.loader)
expect boot/driver "$(uname -r), loader ${loader:-g3}" insmod /vtl0.ko "region=$(word vtl0.region)" "loader=${loader:-g3}" $owner
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
