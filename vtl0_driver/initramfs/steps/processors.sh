# A processor that VTL1 has locked does not go offline: it could not come back.
begin processors/offline "processors stay"
if [ "$(nproc)" = 1 ]; then
	open processors/offline "there is only one"
else
	refused processors/offline "processor 1 is to go offline" sh -c 'echo 0 > /sys/devices/system/cpu/cpu1/online'
	case "$(logged "vtl0: processor 1")" in
	*"stays online"*) ok processors/line "$(logged "vtl0: processor 1")" ;;
	*) fail processors/line "the driver does not say why" ;;
	esac
	if [ "$(nproc)" -gt 1 ]; then ok processors/all "$(nproc) processors"; else fail processors/all "only one is left"; fi
fi
