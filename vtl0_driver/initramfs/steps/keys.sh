# Static keys are flipped by sysctls: VTL1 writes the kernel's text.
begin keys/flip "static keys of the kernel, by sysctls"
flip() {
	before=$(calls PatchText) bad=$(refusals PatchText)
	if [ ! -e "$2" ]; then
		open keys/$1 "this kernel has no $2"
		return
	fi
	old=$(cat "$2")
	for value in $3; do echo "$value" > "$2"; done
	echo "$old" > "$2"
	made=$(($(calls PatchText) - ${before:-0}))
	if [ "$made" -gt 0 ] && [ "${bad:-0}" = "$(refusals PatchText)" ]; then
		ok keys/$1 "$made patches, none refused"
	else
		fail keys/$1 "$made patches, $(refusals PatchText) refused: $(logged "vtl0: PatchText")"
	fi
}
flip schedstats /proc/sys/kernel/sched_schedstats "1 0 1 0"
flip bpf-stats /proc/sys/kernel/bpf_stats_enabled "1 0"
flip delayacct /proc/sys/kernel/task_delayacct "1 0"
