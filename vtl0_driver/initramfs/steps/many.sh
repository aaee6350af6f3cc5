# Many of the distribution's modules are loaded through VTL1, in one boot.
begin many/load "$(wc -l < /lib/vtl0/many) modules and what they depend on"
refused_names= not_loaded= count=0
for module in $(cat /lib/vtl0/many); do
	bad=$(refusals ValidateModule)
	if modprobe "$module" > /run/expect 2>&1; then
		count=$((count + 1))
	elif [ "${bad:-0}" = "$(refusals ValidateModule)" ]; then
		# The module itself finds nothing to do here.
		not_loaded="$not_loaded $module"
	else
		refused_names="$refused_names $module"
	fi
done
text="$(calls ValidateModule) validated, $(refusals ValidateModule) refused; $count loaded; ended by their own init:${not_loaded:- none}"
if [ -z "$refused_names" ]; then ok many/load "$text"; else fail many/load "$text; VTL1 refused$refused_names"; fi
