package bpf

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// damagedFrames is the number of frames that TestDamagedFrames sends each way.
const damagedFrames = 20_000

// Host b gets frames of a peer with random damage. What the programs deliver is a
// whole packet from the peer's subnet to ours, whatever else they do with the frame.
func TestDamagedFrames(t *testing.T) {
	eachFamilies(t, testDamagedFrames)
}

func testDamagedFrames(t *testing.T, f families) {
	for name, tso := range map[string]string{"after GRO": "on", "before GRO": "off"} {
		t.Run(name, func(t *testing.T) {
			lab, hosts := newHostsOf(t, f, false, true, true, true)
			a, b := hosts[0], hosts[1]
			const direct = "direct"
			lab.Wire(a.Host, direct, b.Host, direct, 3000) // fits one buffer, as XDP needs before Linux 5.18
			run(t, b.Host, "ethtool", "-K", direct, "gro", "on", "tso", tso)
			b.attachTo(direct)
			b.hasDecapXDP(direct, tso == "off")
			b.mu.Lock()
			b.odd = func([]byte) {} // the reader's tests are elsewhere
			b.mu.Unlock()
			good := frame{outerSource: a.local(), outerDestination: b.local(), source: a.inner(), destination: b.inner()}
			addrs := [2][]netip.Addr{{netip.IPv4Unspecified()}, {netip.IPv6Unspecified()}}
			for _, h := range hosts {
				addrs[f.inner] = append(addrs[f.inner], h.inner())
			}
			// With the third host's as well, a frame could be one of that.
			addrs[f.outer] = append(addrs[f.outer], a.local(), b.local())
			random := rand.New(rand.NewPCG(1, 2)) // each run sends the same
			last := good
			last.payload = []byte("the last frame")

			checked := make(chan error, 1)
			device := b.listenDevice()
			go func() { checked <- checkDelivered(device, a.subnet, b.subnet, last.payload) }()
			w := newWire(a, b, direct, direct)
			for range damagedFrames {
				w.send(f.damage(random, good.bytes(), addrs))
			}
			// Under load the kernel may drop a frame that it cannot queue.
			retry := time.NewTicker(100 * time.Millisecond)
			defer retry.Stop()
			for w.send(last.bytes()); ; w.send(last.bytes()) {
				select {
				case err := <-checked:
					if err != nil {
						t.Error(err)
					}
					if d := b.drops(); d["unknown_outer_source"] == 0 || d["inner_source_mismatch"] == 0 || d["inner_destination_mismatch"] == 0 || b.statsOf(a.subnet).RxPackets < 100 {
						t.Errorf("drops are %v, %d packets were delivered: the frames test too little", d, b.statsOf(a.subnet).RxPackets)
					}
					return
				case <-retry.C:
				}
			}
		})
	}
}

// damage changes up to three places of a frame. It makes the outer header's checksum
// right again in most cases: otherwise nothing behind it counts.
func (of families) damage(random *rand.Rand, f []byte, addrs [2][]netip.Addr) []byte {
	outer, innerAt := of.outer.HeaderLen(), of.overhead()
	// Where lengths and addresses are in a header, by family.
	length, places := [2]int{2, 4}, [2][2]int{{12, 16}, {8, 24}}
	for range 1 + random.IntN(3) {
		switch at := random.IntN(len(f)); random.IntN(6) {
		case 0:
			f[at] ^= 1 << random.IntN(8)
		case 1:
			f[at] = byte(random.Uint32())
		case 2:
			lengths := []int{length[of.outer], outer + 4, innerAt + length[of.inner]} // of IP, UDP, IP
			binary.BigEndian.PutUint16(f[lengths[random.IntN(3)]:], []uint16{0, 1, 19, 20, 28, 48, 0x7fff, 0xffff}[random.IntN(8)])
		case 3:
			family, start := of.outer, 0
			if random.IntN(2) > 0 {
				family, start = of.inner, innerAt
			}
			copy(f[start+places[family][random.IntN(2)]:], addrs[family][random.IntN(len(addrs[family]))].AsSlice())
		case 4:
			f = f[:max(at, innerAt+of.inner.HeaderLen())]
		case 5:
			f = append(f, make([]byte, random.IntN(64))...)
		}
	}
	if of.outer == inet.IPv4 && random.IntN(8) > 0 {
		f[10], f[11] = 0, 0
		binary.BigEndian.PutUint16(f[10:], checksum(f[:outer]))
	}
	return f
}

// listenDevice opens a socket that gets what arrives by the tunnel device.
func (h *host) listenDevice() (fd int) {
	h.t.Helper()
	h.must(h.Do(func() (err error) {
		// With a protocol, it would receive from all devices until it is bound (packet(7)).
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: h.link(deviceName)})
	}))
	h.t.Cleanup(func() { h.must(unix.Close(fd)) })
	return fd
}

// checkDelivered returns the first error among the packets that arrive until one has
// the last payload.
func checkDelivered(fd int, from, to netip.Prefix, last []byte) (first error) {
	fail := func(format string, args ...any) {
		if first == nil {
			first = fmt.Errorf(format, args...)
		}
	}
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 60}); err != nil {
		return err
	}
	for packet := make([]byte, 1<<16); ; {
		n, sender, err := unix.Recvfrom(fd, packet[:cap(packet)], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return errors.Join(fmt.Errorf("receive from the device: %w", err), first)
		}
		p := packet[:n]
		if link, ok := sender.(*unix.SockaddrLinklayer); !ok || link.Pkttype == unix.PACKET_OUTGOING {
			continue // host b's own
		}
		if n < 20 || p[0]>>4 == 4 && (p[0]&15 < 5 || int(binary.BigEndian.Uint16(p[2:])) > n) ||
			p[0]>>4 == 6 && (n < 40 || 40+int(binary.BigEndian.Uint16(p[4:])) > n) {
			fail("the device got % x", p)
			continue
		}
		source, destination := sourceOf(p), destinationOf(p)
		if !from.Contains(source) || !to.Contains(destination) {
			fail("the device got a packet from %v to %v", source, destination)
		}
		if bytes.HasSuffix(p, last) {
			return first
		}
	}
}
