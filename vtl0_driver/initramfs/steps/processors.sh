# A locked processor goes offline and comes back; before Linux 6.9 it has to stay.
begin processors/offline "a processor goes offline"
one=/sys/devices/system/cpu/cpu1/online
all=$(nproc)
if [ "$all" = 1 ]; then
	open processors/offline "there is only one"
elif [ "$(uname -r | awk -F. '{ print ($1 > 6 || ($1 == 6 && $2 >= 9)) }')" = 1 ]; then
	for round in first second; do
		expect processors/$round-offline "processor 1 goes offline" sh -c "echo 0 > $one"
		expect processors/$round-online "and comes back" sh -c "echo 1 > $one"
	done
	if [ "$(nproc)" = "$all" ]; then ok processors/all "$all processors"; else fail processors/all "$(nproc) of $all"; fi
	case "$(grep -c "the registers of VP 1, which was started again, are locked" $DEBUG/log)" in
	2) ok processors/locked "VTL1 has locked it again, both times" ;;
	*) fail processors/locked "VTL1 does not say that it has locked processor 1 again" ;;
	esac
	expect processors/works "it works" taskset 2 true
else
	refused processors/offline "processor 1 is to go offline" sh -c "echo 0 > $one"
	case "$(logged "vtl0: processor 1")" in
	*"stays online"*) ok processors/line "$(logged "vtl0: processor 1")" ;;
	*) fail processors/line "the driver does not say why" ;;
	esac
	if [ "$(nproc)" = "$all" ]; then ok processors/all "$all processors"; else fail processors/all "one is gone"; fi
fi
