#!/bin/sh
# Starts containerd as a worker node of Kubernetes has it: node.sh DIR CGROUP, in a new
# mount namespace. DIR/containerd.toml is its configuration. The node has folders,
# processes and control groups of its own; the machine's are read-only or out of sight.
set -eu
dir=$1
if [ $# -gt 1 ]; then
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
	mkdir "/sys/fs/cgroup/$2"
	echo $$ >"/sys/fs/cgroup/$2/cgroup.procs"
	exec unshare --mount --pid --cgroup --uts --fork --kill-child=SIGKILL --mount-proc sh "$0" "$dir"
fi

mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t bpf bpf /sys/fs/bpf

# kubelet sets these parameters of the whole machine. It finds their values here.
for folder in abi debug dev fs kernel user vm; do
	[ ! -d /proc/sys/$folder ] || mount -o bind,ro /proc/sys/$folder /proc/sys/$folder
done
mkdir "$dir/sys"
for parameter in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	name=${parameter%=*}
	file=$dir/sys/$(echo "$name" | tr / .)
	echo "${parameter#*=}" >"$file"
	mount --bind "$file" "/proc/sys/$name"
done

for folder in run opt var/lib var/log; do
	mount -t tmpfs tmpfs /$folder
done
mkdir -p /run/etc/upper /run/etc/work /run/node /opt/cni/bin
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work overlay /etc
mkdir -p /etc/cni
mount -t tmpfs tmpfs /etc/cni
mkdir /etc/cni/net.d

cd /
containerd --config "$dir/containerd.toml" &
wait
