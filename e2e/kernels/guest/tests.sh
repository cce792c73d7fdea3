# shellcheck shell=bash
# Runs the test binaries of the job, and gets what docs/kernels.md has of the data path.
uname -r >out/release

# cached reads files into memory. The guest's clock does not stop while it waits for its
# disk, so a program that is read while it runs would exceed its time-outs.
cached() { cat "$@" >/dev/null; }

cached programs/* /usr/bin/etcd /usr/bin/etcdctl /usr/bin/iperf3

# The data path that auto chooses, with its reason: the status of a real daemon.
path() {
	ip link add eth0 type veth peer name far
	ip link set far up
	ip link set eth0 up
	ip addr add 192.168.77.1/24 dev eth0
	ip route add default via 192.168.77.254
	etcd --data-dir /tmp/etcd >/tmp/etcd.log 2>&1 &
	local etcd=$! flannel
	for _ in $(seq 300); do
		ETCDCTL_API=3 etcdctl put /coreos.com/network/config '{"Network": "10.5.0.0/16"}' >/dev/null 2>&1 && break
		sleep 0.2
	done
	programs/flannel -etcd-endpoint=http://127.0.0.1:2379 -state-dir=/tmp/state >out/flannel.log 2>&1 &
	flannel=$!
	for _ in $(seq 300); do
		curl -sf http://127.0.0.1:8286/api/v1/status >/tmp/status.json &&
			mv /tmp/status.json out/status.json &&
			grep -qE 'attached by|"datapath": *"(offload|plain)"' out/status.json && break
		sleep 0.2
	done
	kill $flannel
	wait $flannel
	kill $etcd
	wait $etcd
	programs/flannel cleanup >>out/flannel.log 2>&1
	ip link del eth0
	rm -r /tmp/etcd # in memory
}
path

# A guest that does not end leaves the results of its last seconds, too.
while sleep 5; do sync; done &
syncing=$!

while read -r package binary skip; do
	(
		cached "tests/$binary"
		cd "tree/$package" || exit
		"/job/tests/$binary" -test.v -test.timeout=2h -test.run="$(cat /job/run)" -test.skip="$skip" 2>&1 |
			tee "/job/out/$binary.txt" | grep --line-buffered -E '^--- |^ *--- (FAIL|SKIP)'
		echo "EXIT ${PIPESTATUS[0]}" >>"/job/out/$binary.txt"
	)
	grep -qx 'EXIT 0' "out/$binary.txt" || grep -E '^ +[a-z0-9_]+_test\.go:|^panic' "out/$binary.txt" | tail -n 100
	echo "$package: $(tail -n 1 "out/$binary.txt"), $(cut -d ' ' -f 1 /proc/uptime) s since boot"
done <list
kill $syncing
