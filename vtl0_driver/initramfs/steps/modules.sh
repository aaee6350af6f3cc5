# The distribution's own signed modules are loaded through VTL1, and used.
begin modules/load "a dozen modules of the distribution, with what they depend on"
for module in $(sed 's/[#?].*//' /lib/vtl0/modules); do
	before=$(calls ValidateModule)
	if modprobe $module > /run/expect 2>&1; then
		ok modules/$module "loaded, $(($(calls ValidateModule) - ${before:-0})) validated"
	elif ! grep -q "/$module\.ko" /lib/modules/*/modules.dep; then
		open modules/$module "this kernel has it built in, or not at all"
	else
		fail modules/$module "$(tail -n 1 /run/expect); $(logged "vtl0: module")"
	fi
done

begin modules/use "what they are for"
mkdir -p /mnt/disk /mnt/lower /mnt/upper /mnt/work /mnt/both
dd if=/dev/zero of=/run/disk bs=1M count=8 2> /dev/null
file_on_disk() {
	mkdosfs /run/disk && mount -t vfat -o loop /run/disk /mnt/disk && echo words > /mnt/disk/file &&
		sync && [ "$(cat /mnt/disk/file)" = words ]
}
expect modules/filesystem "a FAT file system on a loop device, a file in it" file_on_disk
over_another() {
	mount -t tmpfs t /mnt/work && mkdir /mnt/work/upper /mnt/work/work && echo below > /mnt/lower/file &&
		mount -t overlay o -o lowerdir=/mnt/lower,upperdir=/mnt/work/upper,workdir=/mnt/work/work /mnt/both &&
		echo above > /mnt/both/file && [ "$(cat /mnt/lower/file)" = below ]
}
expect modules/overlay "an overlay file system" over_another
compressed() {
	echo lz4 > /sys/block/zram0/comp_algorithm && echo 4M > /sys/block/zram0/disksize &&
		mkdosfs /dev/zram0 && mount -t vfat /dev/zram0 /mnt/upper && umount /mnt/upper
}
expect modules/zram "a file system in compressed memory" compressed
pair() {
	ip link add name left type veth && ip link set left up && ip link add name bridge0 type bridge &&
		ip link set left master bridge0 && ip link set bridge0 up
}
expect modules/network "a pair of interfaces, one in a bridge" pair
expect modules/rule "a table, a chain and a rule of nf_tables" vtl0-tool rule
# No file system of XFS is at hand: its code is run by a refusal.
dd if=/dev/zero of=/run/zeros bs=1M count=16 2> /dev/null
refused modules/xfs-reads "XFS reads a disk of zeros and refuses it" mount -t xfs -o loop /run/zeros /mnt/lower
if [ -e /dev/kvm ]; then
	ok modules/kvm-device "/dev/kvm is there"
else
	ok modules/kvm-device "kvm is loaded; these processors offer no virtualization"
fi
