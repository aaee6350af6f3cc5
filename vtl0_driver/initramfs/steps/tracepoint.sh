# A tracepoint that is switched on late wants static calls of the kernel's text, which VTL1 has no sites for: refused, and
# Linux goes on. After the attacks: VTL1 names only the first of many refusals of a kind.
begin tracepoint/switch "a tracepoint is switched on after the end of boot"
mount -t tracefs tracing /sys/kernel/tracing 2> /dev/null
event=/sys/kernel/tracing/events/sched/sched_switch/enable
if [ ! -e $event ]; then
	open tracepoint/switch "this kernel has no $event"
else
	bad=$(refusals PatchText)
	echo 1 > $event
	echo 0 > $event
	made=$(($(refusals PatchText) - ${bad:-0}))
	if [ "$made" -gt 0 ]; then
		open tracepoint/switch "$made patches refused, Linux lives: $(logged "vtl0: PatchText")"
	else
		ok tracepoint/switch "switched on and off without a patch that VTL1 refuses"
	fi
fi
