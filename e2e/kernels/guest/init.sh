#!/bin/bash
# The first process of the guest: mounts what the tests need, runs the job, and
# reports its exit code on the serial port.
export PATH=/job/tools:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C TERM=dumb
mount -t ext4 -o ro /dev/vdb /usr/lib/modules
mount -t ext4 /dev/vdc /job
mount -t proc proc /proc
mount -t sysfs sys /sys
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs shm /dev/shm
mount -t tmpfs run /run

# A store has 128 MiB of files. With little memory they are on the disk.
if [ "$(awk '/^MemTotal/ {print $2}' /proc/meminfo)" -gt 500000 ]; then
	mount -t tmpfs tmp /tmp
else
	mkdir /job/tmp
	mount --bind /job/tmp /tmp
fi
mkdir -p /run/netns /run/lock
mount -t bpf bpf /sys/fs/bpf

# argument prints the value of an argument of the kernel.
argument() { sed -n "s/.*\bguest\.$1=\([^ ]*\).*/\1/p" /proc/cmdline; }
if [ "$(argument cgroup)" = 1 ]; then
	mount -t tmpfs cgroup /sys/fs/cgroup
	for controller in memory cpu pids; do
		mkdir "/sys/fs/cgroup/$controller"
		mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller"
	done
else
	mount -t cgroup2 cgroup /sys/fs/cgroup
fi
[ "$(argument btf)" != 0 ] || mount -t tmpfs none /sys/kernel/btf
for module in $(argument modules | tr , ' '); do
	modprobe "$module"
done
for module in $(argument without | tr , ' '); do
	echo "install $module /bin/false"
done >/etc/modprobe.d/without.conf
ln -sfn /proc/self/fd /dev/fd
for n in 0:stdin 1:stdout 2:stderr; do
	ln -sfn "/proc/self/fd/${n%:*}" "/dev/${n#*:}"
done
hostname guest
ip link set lo up
modprobe tun
cd /job || exit
mkdir -p out
bash /job/command </dev/null
code=$?
cd /
mountpoint -q /tmp && umount -l /tmp
umount -l /job
sync
echo "GUEST-EXIT $code"
sync
echo o >/proc/sysrq-trigger
sleep 10
