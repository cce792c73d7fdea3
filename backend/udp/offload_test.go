package udp

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/offload"
	"github.com/coreos/flannel/pkg/tun/virtio"
	"github.com/coreos/flannel/pkg/udpsock"
	"github.com/coreos/flannel/subnet"
)

// loop is an offload path that sends to itself, in its own namespace: 127.0.0.1 holds
// our subnet and another one. Its goroutines do not run; tests call their steps.
type loop struct {
	*offloaded
	host    *netnstest.Host
	network *network
	out     *outQueue
	in      *inQueue
}

var (
	ownSubnet = netip.MustParsePrefix("10.5.0.0/24")
	itself    = netip.MustParseAddr("127.0.0.1")
	farEnd    = netip.MustParseAddrPort("10.5.1.2:5000")
	nearEnd   = netip.MustParseAddrPort("10.5.0.2:6000")
)

func newLoop(t testing.TB) *loop {
	t.Helper()
	netnstest.Require(t)
	l := &loop{host: netnstest.New(t).Namespace("loop")}
	overlay := netip.MustParsePrefix("10.5.0.0/16")
	table := tableFor(overlay, 24, ownSubnet)
	p := &pathConfig{
		tableConfig: table.config, table: table,
		locals: [2]netip.AddrPort{netip.AddrPortFrom(itself, DefaultPort)},
		drops:  new(drops), links: l.host.Netlink(),
	}
	p.Uplink.MTU = 1500
	p.table.interfacesTo = allBy(1) // lo
	p.table.apply([]subnet.Event{added(lease("10.5.0.0/24", "127.0.0.1")), added(lease("10.5.1.0/24", "127.0.0.1"))})
	err := l.host.Do(func() (err error) {
		if l.offloaded, err = openQueues(t.Context(), p, 1); err != nil {
			return err
		}
		l.network = &network{pathConfig: p, path: l.offloaded}
		return l.network.openDevice()
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(l.network.Close(), l.close()); err != nil {
			t.Error(err)
		}
	})
	l.out = newOutQueue(l.offloaded, l.device.Queues()[0], 0)
	l.in = newInQueue(l.offloaded, l.device.Queues()[0], l.receiving[inet.IPv4][0])
	return l
}

// roundTrip carries a packet from a read of the device to a write.
func (l *loop) roundTrip(b []byte, packets int) error {
	if err := errors.Join(l.out.send(b), l.out.flush()); err != nil {
		return err
	}
	before := l.received()
	for l.received() < before+uint64(packets) {
		if err := l.receive(); err != nil {
			return err
		}
	}
	return nil
}

// receive is a step of inQueue.run.
func (l *loop) receive() error {
	n, err := l.in.receiver.Receive()
	if err != nil {
		return err
	}
	for i := range n {
		if err := l.in.message(l.in.receiver.Message(i)); err != nil {
			return err
		}
	}
	return l.in.write(l.in.merger.Flush())
}

func (l *loop) received() uint64 {
	return l.peer(farEnd).traffic.rx.packets.Load() + l.drops[deviceWriteError].Load()
}

func (l *loop) peer(inner netip.AddrPort) *peer {
	return l.table.lookup(inet.IPv4, inet.RawOf(inner.Addr()))
}

func (l *loop) conn() *udpsock.Conn { return l.receiving[inet.IPv4][0] }

// server returns a socket at the device's address.
func (l *loop) server(t *testing.T) (net.PacketConn, netip.AddrPort) {
	t.Helper()
	c, err := l.host.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(ownSubnet.Addr(), 6000).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c, c.LocalAddr().(*net.UDPAddr).AddrPort()
}

// receive reads datagrams with a total of n bytes.
func receive(t *testing.T, c net.PacketConn, n int) (got []byte) {
	t.Helper()
	for buf := make([]byte, 2000); len(got) < n; {
		n, _, err := c.ReadFrom(buf)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, buf[:n]...)
	}
	return got
}

// udpRead returns a UDP super-packet as read from the device; for a segment of 0 a
// single packet.
func udpRead(from, to netip.AddrPort, payload []byte, segment int) []byte {
	h := virtio.NetHdr{Flags: virtio.FlagNeedsCsum, CsumStart: 20, CsumOffset: 6, HdrLen: 28}
	if segment > 0 {
		h.GSOType, h.GSOSize = virtio.GSOUDPL4, uint16(segment)
	}
	var hdr [virtio.HdrLen]byte
	h.Encode(&hdr)
	p := make([]byte, 28, 28+len(payload))
	p[0], p[8], p[9] = 0x45, 64, unix.IPPROTO_UDP
	n := uint16(8 + len(payload))
	binary.BigEndian.PutUint16(p[2:], 20+n)
	src, dst := from.Addr().As4(), to.Addr().As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], checksum.Finish(checksum.Add(0, p[:20])))
	binary.BigEndian.PutUint16(p[20:], from.Port())
	binary.BigEndian.PutUint16(p[22:], to.Port())
	binary.BigEndian.PutUint16(p[24:], n)
	binary.BigEndian.PutUint16(p[26:], checksum.Fold(checksum.Pseudo4(uint32(inet.RawOf(from.Addr()).Lo), uint32(inet.RawOf(to.Addr()).Lo), unix.IPPROTO_UDP, n)))
	return slices.Concat(hdr[:], p, payload)
}

func TestOffloadAllocatesNothing(t *testing.T) {
	l := newLoop(t)
	for name, c := range map[string]struct{ segment, packets int }{
		"super-packet": {1000, 40}, "single packet": {0, 1},
	} {
		payload := make([]byte, max(c.segment, 1000)*c.packets)
		b := udpRead(farEnd, nearEnd, payload, c.segment)
		var failure error
		if n := testing.AllocsPerRun(100, func() {
			if err := l.roundTrip(b, c.packets); err != nil {
				failure = err
			}
		}); n != 0 || failure != nil {
			t.Errorf("%s: %v allocations each way, error %v", name, n, failure)
		}
	}
	for r, n := range l.drops.snapshot() {
		if n != 0 {
			t.Errorf("%d packets dropped: %s", n, r)
		}
	}
	tx, rx := &l.peer(nearEnd).traffic.tx, &l.peer(farEnd).traffic.rx
	if tx.packets.Load() != rx.packets.Load() || tx.bytes.Load() != rx.bytes.Load() {
		t.Errorf("counted %d packets, %d bytes out, %d packets, %d bytes in",
			tx.packets.Load(), tx.bytes.Load(), rx.packets.Load(), rx.bytes.Load())
	}
}

// A super-packet that takes two sends.
func TestLongSuperPacketArrives(t *testing.T) {
	l := newLoop(t)
	server, to := l.server(t)
	payload := make([]byte, 46*1400)
	for i := range payload {
		payload[i] = byte(i / 100)
	}
	if err := l.roundTrip(udpRead(farEnd, to, payload, 1400), 46); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, server, len(payload)); !bytes.Equal(got, payload) {
		t.Error("payload changed")
	}
}

// The device's queue holds what a container's own tunnel makes of a window of TCP
// until the reader runs.
func TestQueueHoldsWindow(t *testing.T) {
	l := newLoop(t)
	c, err := l.host.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(ownSubnet.Addr(), 6000).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const window = 6 << 20 // bytes
	for range window / 1472 {
		if _, err := c.WriteTo(make([]byte, 1400), net.UDPAddrFromAddrPort(farEnd)); err != nil {
			t.Fatal(err)
		}
	}
	link, err := l.host.Netlink().LinkByName(l.deviceName())
	if err != nil {
		t.Fatal(err)
	}
	if n := link.Attrs().Statistics.TxDropped; n > 0 {
		t.Errorf("the device has dropped %d packets", n)
	}
}

func TestOverflowIsCounted(t *testing.T) {
	l := newLoop(t)
	const packets = 44 // in a message
	b := udpRead(farEnd, nearEnd, make([]byte, packets*1400), 1400)
	sent := 4 * socketBuffer / len(b)
	for range sent {
		if err := l.out.send(b); err != nil {
			t.Fatal(err)
		}
	}
	// The count comes with the next message that finds room. There is room only after
	// a quarter of the buffer was read (udp_rmem_release).
	for l.received() < socketBuffer/1400/2 {
		if err := l.receive(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.out.send(b); err != nil {
		t.Fatal(err)
	}
	// The kernel counts a message as one drop. Linux 5.10 has cut it before. Far fewer
	// packets are in the buffer than were dropped, so one sum is not taken for the other.
	for {
		lost, drops := l.peer(nearEnd).traffic.tx.packets.Load()-l.received(), l.conn().Drops()
		if lost == drops*packets || lost == drops {
			break
		}
		if err := l.receive(); err != nil {
			t.Fatal(err)
		}
		l.in.countOverflow()
	}
	l.in.countOverflow() // nothing new
	if n := l.drops[receiveOverflow].Load(); n == 0 || n != l.conn().Drops() {
		t.Errorf("%d drops counted, %d happened", n, l.conn().Drops())
	}
}

func BenchmarkOffload(b *testing.B) {
	l := newLoop(b)
	for _, c := range []struct{ segment, packets int }{{1400, 44}, {64, 64}, {0, 1}} {
		b.Run(fmt.Sprintf("%d×%d", c.packets, c.segment), func(b *testing.B) {
			payload := make([]byte, max(c.segment, 64)*c.packets)
			buf := udpRead(farEnd, nearEnd, payload, c.segment)
			b.SetBytes(int64(len(payload)))
			b.ReportAllocs()
			for b.Loop() {
				if err := l.roundTrip(buf, c.packets); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// If the kernel refuses a super-packet, its packets are written one by one, and merging
// ends.
func TestRefusedSuperPacketGetsIn(t *testing.T) {
	l := newLoop(t)
	server, to := l.server(t)
	payload := bytes.Repeat([]byte("0123456789"), 25)
	var splitter offload.Splitter
	var h virtio.NetHdr
	read := udpRead(farEnd, to, payload, 100)
	if err := errors.Join(h.Decode(read), splitter.Reset(&h, read[virtio.HdrLen:])); err != nil {
		t.Fatal(err)
	}
	var train offload.Train
	splitter.Next(&train)
	merger := offload.NewMerger(offload.MergeConfig{UDP: true})
	var packets [][]byte
	for p := range slices.Chunk(slices.Concat(train.Bufs...), train.SegLen) {
		packets = append(packets, slices.Clone(p))
		merger.Add(p)
	}
	from := l.peer(farEnd)
	if err := l.in.refused(merger.Flush(), from, unix.EINVAL); err != nil {
		t.Fatal(err)
	}

	if got := receive(t, server, len(payload)); !bytes.Equal(got, payload) {
		t.Error("payload changed")
	}
	if n := from.traffic.rx.packets.Load(); n != 3 {
		t.Errorf("%d packets counted, want 3", n)
	}
	if !strings.Contains(l.detail(), "TSO write (invalid argument)") {
		t.Errorf("detail is %q", l.detail())
	}
	if l.in.merger.Add(packets[0]); l.in.merger.Add(packets[1]) == nil {
		t.Error("packets are still merged")
	}
}

// Each datagram of a message is checked by itself.
func TestEachDatagramIsAdmitted(t *testing.T) {
	l := newLoop(t)
	spoofed := netip.MustParseAddrPort("10.5.7.7:5000")
	var all []byte
	for _, ends := range [][2]netip.AddrPort{{farEnd, nearEnd}, {spoofed, nearEnd}, {farEnd, nearEnd}, {farEnd, spoofed}} {
		all = append(all, udpRead(ends[0], ends[1], make([]byte, 100), 0)[virtio.HdrLen:]...)
	}
	all = append(all, 0x45, 0) // and a stump
	err := l.in.message(udpsock.Message{Interface: 1, Data: all, SegLen: 128, From: inet.RawOf(itself)})
	if err := errors.Join(err, l.in.write(l.in.merger.Flush()), l.in.message(udpsock.Message{SegLen: 1, From: inet.Raw4(1)})); err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{"inner_source_mismatch": 1, "inner_destination_mismatch": 1, "malformed": 2}
	for r, n := range l.drops.snapshot() {
		if n != want[r] {
			t.Errorf("%s: %d, want %d", r, n, want[r])
		}
	}
	if n := l.received(); n != 2 {
		t.Errorf("%d packets got in, want 2", n)
	}
}

// Malformed packets from the device are counted.
func TestMalformedReadsAreDropped(t *testing.T) {
	l := newLoop(t)
	v6 := make([]byte, virtio.HdrLen+40)
	v6[virtio.HdrLen] = 0x60
	for _, b := range [][]byte{nil, make([]byte, virtio.HdrLen), v6} {
		if err := l.out.send(b); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.drops[malformed].Load(); n != 3 {
		t.Errorf("%d malformed, want 3", n)
	}
}

func TestFlowHash(t *testing.T) {
	a := packet(udpRead(farEnd, nearEnd, make([]byte, 100), 0)[virtio.HdrLen:])
	b := slices.Clone(a)
	b[4], b[8], b[40] = 1, 2, 3 // ID, TTL, payload
	if a.flowHash() != b.flowHash() {
		t.Error("packets of a flow differ in hash")
	}
	b[6], b[20] = 0x20, 9 // a first fragment, its ports
	c := slices.Clone(b)
	c[6], c[7], c[20] = 0, 7, 200 // a later one, which has none
	if b.flowHash() != c.flowHash() {
		t.Error("fragments differ in hash")
	}
	seen := make(map[uint32]bool)
	for port := range 64 {
		a[21] = byte(port)
		seen[a.flowHash()%txPorts] = true
	}
	if len(seen) != txPorts {
		t.Errorf("64 ports spread over %d ports", len(seen))
	}
}

func TestChoosePaths(t *testing.T) {
	for flag, want := range map[string]string{"": "kernel offload plain", "auto": "kernel offload plain", "plain": "plain", "offload": "offload", "kernel": "kernel"} {
		kinds, err := choosePaths(flag)
		var names []string
		for _, k := range kinds {
			names = append(names, k.name)
		}
		if err != nil || strings.Join(names, " ") != want {
			t.Errorf("-udp-datapath=%q: %v, %v; want %s", flag, names, err, want)
		}
	}
	if _, err := choosePaths("turbo"); err == nil || !strings.Contains(err.Error(), "auto, kernel, offload, plain") {
		t.Errorf("unknown data path: %v", err)
	}
}

func TestPathThatDoesNotOpenIsPassedOver(t *testing.T) {
	broken := pathKind{"broken", func(context.Context, *pathConfig) (dataPath, error) { return nil, os.ErrPermission }}
	works := pathKind{"works", func(context.Context, *pathConfig) (dataPath, error) { return &plain{}, nil }}
	n := &network{pathConfig: &pathConfig{tableConfig: tableConfig{Config: backend.Config{Network: netip.MustParsePrefix("10.5.0.0/16")}}}}
	if err := n.openFirst(t.Context(), []pathKind{broken, works}, nil); err != nil {
		t.Fatal(err)
	}
	if n.path.name() != plainName || !strings.Contains(n.reason, "not broken: permission denied") {
		t.Errorf("chose %s, reason %q", n.path.name(), n.reason)
	}
	if err := n.openFirst(t.Context(), []pathKind{broken}, nil); !errors.Is(err, os.ErrPermission) {
		t.Errorf("nothing opens: %v", err)
	}
	final := pathKind{"final", func(context.Context, *pathConfig) (dataPath, error) { return nil, &finalError{unix.EADDRINUSE} }}
	err := n.openFirst(t.Context(), []pathKind{final, works}, nil)
	if !errors.Is(err, unix.EADDRINUSE) || strings.Contains(err.Error(), "works") {
		t.Errorf("what no path would be spared: %v", err)
	}
}

// A socket with smaller buffers than it should have is in the status. The kernel's limit
// of sizes stands for that of a user without CAP_NET_ADMIN.
func TestSmallBuffersAreInDetail(t *testing.T) {
	l := newLoop(t)
	const remedy = "sysctl -w net.core.rmem_max="
	if s := l.detail(); strings.Contains(s, remedy) {
		t.Errorf("detail is %q", s)
	}
	c, err := udpsock.Open(udpsock.Config{Local: netip.MustParseAddrPort("127.0.0.1:0"), Buffer: math.MaxInt32})
	if err != nil {
		t.Fatal(err)
	}
	l.receiving[inet.IPv4] = append(l.receiving[inet.IPv4], c)
	details := []string{l.detail(), (&plain{pathConfig: l.offloaded.pathConfig, sockets: [2]*udpsock.Conn{inet.IPv4: c}}).detail()}
	for _, s := range details {
		if !strings.Contains(s, remedy) {
			t.Errorf("detail is %q, want %q in it", s, remedy)
		}
	}
}
