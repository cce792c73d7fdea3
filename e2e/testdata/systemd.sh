#!/bin/sh
# Starts systemd as the first process of a PID namespace, on a root of its own:
# systemd.sh ROOT CGROUP, in a new mount namespace. ROOT/usr shows the machine's
# and keeps what is written to it in memory; there are no other units than those
# that the test needs.
set -eu
root=$1
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mkdir "/sys/fs/cgroup/$2"
echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
mount -t tmpfs tmpfs "$root"
cd "$root"
for dir in bin sbin lib lib64; do
	[ ! -L /$dir ] || cp -P /$dir $dir
done
mkdir -p .usr/upper .usr/work usr etc/systemd/system proc sys run tmp dev/net dev/pts dev/shm root \
	var/lib/dpkg/info var/lib/dpkg/updates var/lib/dpkg/triggers
touch var/lib/dpkg/status var/lib/dpkg/available
mount -t overlay -o "lowerdir=/usr,upperdir=$PWD/.usr/upper,workdir=$PWD/.usr/work" overlay usr
mount -t tmpfs tmpfs usr/lib/systemd/system
for unit in sysinit.target basic.target sockets.target multi-user.target shutdown.target umount.target network.target \
	network-online.target systemd-journald.service systemd-journald.socket systemd-journald-dev-log.socket \
	docker.service docker.socket containerd.service; do
	cp /usr/lib/systemd/system/$unit usr/lib/systemd/system/
done
mkdir usr/lib/systemd/system/sockets.target.wants
ln -s ../systemd-journald.socket ../systemd-journald-dev-log.socket usr/lib/systemd/system/sockets.target.wants/
for file in null zero full random urandom net/tun; do
	touch dev/$file
	mount --bind /dev/$file dev/$file
done
touch dev/console
cp -r /etc/alternatives /etc/ld.so.cache etc/
echo root:x:0:0:root:/root:/bin/sh >etc/passwd
printf 'root:x:0:\ndocker:x:999:\n' >etc/group
echo 0123456789abcdef0123456789abcdef >etc/machine-id
exec unshare --cgroup --pid --fork --kill-child=SIGKILL sh -euc '
	mount -t proc proc proc
	mount -t sysfs sysfs sys
	mount -t cgroup2 cgroup2 sys/fs/cgroup
	mount -t bpf bpf sys/fs/bpf
	exec env -i container=other PATH=/usr/sbin:/usr/bin chroot . /usr/lib/systemd/systemd --unit=multi-user.target'
