# Attacks by the kernel itself, which a part of the driver makes that is built for this only (ATTACKS=1).
# freed-frame needs a module that is loaded.
modprobe tcp_bbr 2> /dev/null
begin attack/kernel "the kernel itself attacks; each is stopped, named by VTL1, and Linux lives on"

# The last line of VTL1's log.
last_of_vtl1() { tail -n 1 $DEBUG/log; }

# What became of an attack: attacked NAME LINE-OF-LINUX LINE-OF-VTL1-BEFORE
attacked() {
	local after
	after=$(last_of_vtl1)
	case "$2" in
	*": stopped: "*)
		if [ "$after" = "$3" ]; then
			fail attack/$1 "${2#*: stopped: }; VTL1's log does not name it"
		else
			ok attack/$1 "${2#*: stopped: }; Linux lives; $after"
		fi ;;
	*": open: "*) open attack/$1 "${2#*: open: }" ;;
	*) fail attack/$1 "${2:-the kernel says nothing}" ;;
	esac
}

for name in text-alias vtl1-read vtl1-write vtl1-execute cr0-wp cr4-smep efer-nxe lstar idt data-execute freed-frame \
	jump-label jump-label-poke kexec-over-text text-elsewhere function-pointer; do
	before=$(last_of_vtl1)
	echo $name > $DEBUG/attack
	attacked $name "$(logged "vtl0: attack $name:")" "$before"
done

# A module that must not load: bad_module NAME TEXT COMMAND...
bad_module() {
	local name=$1 text=$2 before line
	before=$(last_of_vtl1)
	shift 2
	if "$@" > /run/expect 2>&1; then
		fail attack/$name "$text: it was loaded"
		return
	fi
	line=$(logged "vtl0: module .* is refused")
	attacked $name "${line:+: stopped: $text: ${line#vtl0: }}" "$before"
}

bad_module unsigned "a module without its signature" insmod /lib/vtl0/unsigned.ko
refused attack/flipped "a module with a bit of its file turned: Linux itself refuses it" insmod /lib/vtl0/flipped.ko
rmmod tcp_bbr 2> /dev/null
for name in module-memory module-file; do
	echo $name > $DEBUG/attack
	bad_module $name "a module with a bit turned by the kernel" modprobe tcp_bbr
	echo $name > $DEBUG/attack
done
expect attack/afterwards "the same module as it is loads" modprobe tcp_bbr
