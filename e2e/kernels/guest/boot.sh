#!/bin/sh
# The first process of the initial file system: loads the modules of the root disk
# and changes to it.
PATH=/bin
b=/bin/busybox
$b mount -t devtmpfs dev /dev
$b mount -t proc proc /proc
for module in /modules/*.ko; do
	$b insmod "$module"
done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do
	$b sleep 0.1
	tries=$((tries + 1))
done
if ! $b mount -t ext4 -o noatime /dev/vda /root; then
	echo GUEST-EXIT 99
	$b poweroff -f
fi
$b mount -o move /dev /root/dev
$b umount /proc
exec $b switch_root /root /sbin/guest-init
