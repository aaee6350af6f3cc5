# VTL1 is started, and guards this Linux. Without it no other step has a meaning.
begin boot/driver "the driver starts VTL1 on $(nproc) processors and hands over kernel data and memory"
loader=$(word vtl0.loader)
# vtl0.end_of_boot=0: the step `late` ends the boot.
end=$(word vtl0.end_of_boot)
owner=
[ -f /lib/vtl0/owner.der ] && owner=owner=/lib/vtl0/owner.der
if insmod /vtl0.ko "region=$(word vtl0.region)" "loader=${loader:-g3}" "end_of_boot=${end:-1}" $owner > /run/expect 2>&1; then
	ok boot/driver "$(uname -r), loader ${loader:-g3}"
else
	# The first line says why; busybox tries twice.
	fail boot/driver "$(dmesg | grep "vtl0: " | head -n 1 | sed 's/^\[[^]]*\] //'); $(tail -n 1 /run/expect)"
	break
fi
if [ "$(calls LockRegs)" = "$(nproc)" ]; then
	ok boot/locks "the registers of $(nproc) processors are locked"
else
	fail boot/locks "LockRegs: $(calls LockRegs) calls of $(nproc) processors"
fi
calls="Query LoadKData ProtectMemory AllocateRingbufferMemory"
[ "${end:-1}" = 1 ] && calls="$calls SignalEndOfBoot"
for call in $calls; do
	if [ "$(calls $call) $(refusals $call)" = "1 0" ]; then
		ok boot/$call "accepted"
	else
		fail boot/$call "$(grep $call $DEBUG/calls || echo "not called")"
	fi
done
if grep -q "ProtectMemory" $DEBUG/log; then
	ok boot/ring "$(tail -n 1 $DEBUG/log)"
else
	fail boot/ring "VTL1's log does not have ProtectMemory"
fi
