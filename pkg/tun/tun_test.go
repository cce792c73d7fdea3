package tun

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/checksum"
	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/tun/virtio"
)

// open opens a device in a new namespace, and closes it with the test.
func open(t *testing.T, cfg Config) (*Device, *netnstest.Host) {
	t.Helper()
	netnstest.Require(t)
	h := netnstest.New(t).Namespace("tun")
	var d *Device
	if err := h.Do(func() (err error) { d, err = Open(cfg); return err }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d, h
}

var (
	local = netip.MustParsePrefix("10.99.0.1/24")
	far   = netip.MustParseAddr("10.99.0.2")
)

// up gives the device an address and a route to the test's far side.
func up(t *testing.T, d *Device, h *netnstest.Host) {
	t.Helper()
	h.Sysctl("net/ipv6/conf/all/disable_ipv6", "1") // no router solicitations
	link, err := h.Netlink().LinkByName(d.Name())
	if err != nil {
		t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: local.Addr().AsSlice(), Mask: net.CIDRMask(24, 32)}}
	if err := h.Netlink().AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	if err := h.Netlink().LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
}

func TestOpenFillsInThePattern(t *testing.T) {
	d, h := open(t, Config{Name: "flannel%d", Queues: 3})
	if d.Name() != "flannel0" || len(d.Queues()) != 3 {
		t.Errorf("name %q, %d queues; want flannel0, 3", d.Name(), len(d.Queues()))
	}
	if !h.HasLink("flannel0") {
		t.Error("no such device in the namespace")
	}
	var second *Device
	if err := h.Do(func() (err error) { second, err = Open(Config{Name: "flannel%d"}); return err }); err != nil {
		t.Fatal(err)
	}
	if second.Name() != "flannel1" {
		t.Errorf("second device is %q, want flannel1", second.Name())
	}
	if err := errors.Join(second.Close(), second.Close()); err != nil {
		t.Errorf("close twice: %v", err)
	}
	if h.HasLink("flannel1") {
		t.Error("the device outlives its Close")
	}
}

// Child processes must not hold the device.
func TestQueuesAreClosedOnExec(t *testing.T) {
	d, _ := open(t, Config{Queues: 2})
	for i, q := range d.Queues() {
		err := q.control(func(fd int) error {
			flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
			if err == nil && flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("queue %d stays open in other programs", i)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenReportsFeatures(t *testing.T) {
	d, _ := open(t, Config{Name: "full"})
	f := d.Features()
	for name, reason := range map[string]error{
		"Checksum": f.Checksum, "TSO4": f.TSO4, "TSO6": f.TSO6, "WriteTSO4": f.WriteTSO4, "WriteTSO6": f.WriteTSO6,
	} {
		if reason != nil {
			t.Errorf("%s is off: %v", name, reason)
		}
	}
	t.Logf("USO: %v, WriteUSO: %v", f.USO, f.WriteUSO)
}

func TestProbeSeesARefusedHeader(t *testing.T) {
	d, _ := open(t, Config{})
	err := d.Queues()[0].control(func(fd int) error { return probeWrite(fd, 0x7f) })
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("probe of an unknown GSO type: %v, want EINVAL", err)
	}
	if err = explainWrite(err); !errors.Is(err, unix.EINVAL) || !strings.Contains(err.Error(), "newer stable releases take them") {
		t.Errorf("the reason is %v", err)
	}
}

func TestPersistentDeviceStays(t *testing.T) {
	d, h := open(t, Config{Name: "keep%d", Persistent: true})
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if !h.HasLink("keep0") {
		t.Fatal("a persistent device went away")
	}
	var again *Device
	if err := h.Do(func() (err error) { again, err = Open(Config{Name: "keep0"}); return err }); err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Fatal(err)
	}
	if h.HasLink("keep0") {
		t.Error("the device stays, though its last owner did not ask for it")
	}
}

func TestOpenFailsWithTheCause(t *testing.T) {
	_, h := open(t, Config{Name: "one"})
	err := h.Do(func() error { _, err := Open(Config{Name: "a-name-that-is-too-long"}); return err })
	if err == nil {
		t.Error("opened a device whose name is too long")
	}
	err = h.Do(func() error { _, err := Open(Config{Name: "lo"}); return err })
	if !errors.Is(err, unix.EINVAL) {
		t.Errorf("open of a device that is no TUN: %v, want EINVAL", err)
	}
}

func TestWakeAndCloseEndReads(t *testing.T) {
	for name, c := range map[string]struct {
		end  func(*Device) error
		want error
	}{
		"Wake":  {(*Device).Wake, os.ErrDeadlineExceeded},
		"Close": {(*Device).Close, os.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) { testEndsReads(t, c.end, c.want) })
	}
}

func testEndsReads(t *testing.T, end func(*Device) error, want error) {
	d, _ := open(t, Config{Queues: 2})
	var wg sync.WaitGroup
	errs := make([]error, 2)
	started := make(chan struct{}, 2)
	for i, q := range d.Queues() {
		wg.Go(func() {
			started <- struct{}{}
			_, _, errs[i] = q.Read(make([]byte, MaxRead))
		})
	}
	<-started
	<-started
	if err := end(d); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	for _, err := range errs {
		if !errors.Is(err, want) {
			t.Errorf("read: %v, want %v", err, want)
		}
	}
	if _, err := d.Queues()[0].TryRead(make([]byte, MaxRead)); !errors.Is(err, want) {
		t.Errorf("TryRead: %v, want %v", err, want)
	}
	if err := NewWriter(d.Queues()[0]).Writev([][]byte{make([]byte, 30)}); errors.Is(want, os.ErrClosed) && !errors.Is(err, want) {
		t.Errorf("Writev: %v, want %v", err, want)
	}
}

// udpPacket returns a vnet header and a UDP super-packet from the far side to port,
// whose checksum the kernel completes.
func udpPacket(port uint16, payload []byte, segment int) [][]byte {
	p := make([]byte, 28, 28+len(payload))
	p[0] = 4<<4 | 5
	binary.BigEndian.PutUint16(p[2:], uint16(28+len(payload)))
	p[8], p[9] = 64, unix.IPPROTO_UDP
	src, dst := far.As4(), local.Addr().As4()
	copy(p[12:], src[:])
	copy(p[16:], dst[:])
	binary.BigEndian.PutUint16(p[10:], checksum.Finish(checksum.Add(0, p[:20])))
	binary.BigEndian.PutUint16(p[20:], 4242)
	binary.BigEndian.PutUint16(p[22:], port)
	binary.BigEndian.PutUint16(p[24:], uint16(8+len(payload)))
	binary.BigEndian.PutUint16(p[26:], checksum.Fold(checksum.Pseudo4(
		binary.BigEndian.Uint32(src[:]), binary.BigEndian.Uint32(dst[:]), unix.IPPROTO_UDP, uint16(8+len(payload)))))
	h := virtio.NetHdr{Flags: virtio.FlagNeedsCsum, CsumStart: 20, CsumOffset: 6, HdrLen: 28}
	if segment > 0 {
		h.GSOType, h.GSOSize = virtio.GSOUDPL4, uint16(segment)
	}
	var hdr [virtio.HdrLen]byte
	h.Encode(&hdr)
	return [][]byte{hdr[:], p, nil, payload[:len(payload)/2], payload[len(payload)/2:]}
}

func TestWritevDeliversSuperPackets(t *testing.T) {
	d, h := open(t, Config{Name: "flannel%d"})
	up(t, d, h)
	if err := d.Features().WriteUSO; err != nil {
		t.Logf("kernel without UDP super-packets: %v", err)
		return
	}
	c, err := h.ListenPacket(t.Context(), "udp4", netip.AddrPortFrom(local.Addr(), 0).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	port := uint16(c.LocalAddr().(*net.UDPAddr).Port)

	payload := make([]byte, 2500)
	for i := range payload {
		payload[i] = byte(i)
	}
	if err := NewWriter(d.Queues()[0]).Writev(udpPacket(port, payload, 1000)); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, want := range []int{1000, 1000, 500} {
		buf := make([]byte, 2000)
		n, _, err := c.ReadFrom(buf)
		if err != nil || n != want {
			t.Fatalf("received %d bytes, %v; want %d", n, err, want)
		}
		got = append(got, buf[:n]...)
	}
	if !bytes.Equal(got, payload) {
		t.Error("the payload changed on its way")
	}
}

func TestWritevReportsTheErrno(t *testing.T) {
	d, h := open(t, Config{})
	q := NewWriter(d.Queues()[0])
	if err := q.Writev(udpPacket(1, make([]byte, 10), 0)); !errors.Is(err, unix.EIO) {
		t.Errorf("write while the device is down: %v, want EIO", err)
	}
	up(t, d, h)
	bad := udpPacket(1, make([]byte, 10), 0)
	bad[0][1] = 0x7f
	if err := q.Writev(bad); !errors.Is(err, unix.EINVAL) {
		t.Errorf("write of an unknown GSO type: %v, want EINVAL", err)
	}
	if err := q.Writev(make([][]byte, maxBuffers+1)); !errors.Is(err, errTooManyBuffers) {
		t.Errorf("write of 1025 buffers: %v", err)
	}
}

// No host answers a TCP connection through the device. So UDP with UDP_SEGMENT makes
// the kernel send a super-packet.
func TestReadReturnsSuperPackets(t *testing.T) {
	d, h := open(t, Config{})
	up(t, d, h)
	if err := d.Features().USO; err != nil {
		t.Logf("kernel without UDP super-packets: %v", err)
		return
	}
	c, err := h.Dial(t.Context(), "udp4", netip.AddrPortFrom(far, 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	raw, err := c.(*net.UDPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var serr error
	err = raw.Control(func(fd uintptr) { serr = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, 1000) })
	if err := errors.Join(err, serr); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write(make([]byte, 2500)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxRead)
	n, waited, err := d.Queues()[0].Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	var hdr virtio.NetHdr
	if err := hdr.Decode(buf[:n]); err != nil {
		t.Fatal(err)
	}
	if hdr.GSOType != virtio.GSOUDPL4 || hdr.GSOSize != 1000 || hdr.Flags&virtio.FlagNeedsCsum == 0 || n != virtio.HdrLen+2528 {
		t.Errorf("read %d bytes, %+v; want 2538 bytes, UDP_L4, size 1000, checksum to do", n, hdr)
	}
	if waited {
		t.Error("Read says that it waited for a packet that was there")
	}
	if n, err := d.Queues()[0].TryRead(buf); n != 0 || err != nil {
		t.Errorf("TryRead of an empty queue: %d, %v", n, err)
	}
}

func TestReadTellsThatItWaited(t *testing.T) {
	d, _ := open(t, Config{})
	q := d.Queues()[0]
	for _, park := range []bool{true, false} {
		q.buf, q.park, q.waited = make([]byte, MaxRead), park, false
		var over bool
		err := q.control(func(fd int) error { over = q.readOnce(uintptr(fd)); return nil })
		if err != nil || over == park || q.waited != park {
			t.Errorf("empty queue, park %v: over %v, waited %v, %v", park, over, q.waited, err)
		}
	}
}

func TestQueueAllocatesNothing(t *testing.T) {
	d, h := open(t, Config{})
	up(t, d, h)
	q := d.Queues()[0]
	w := NewWriter(q)
	pkt := udpPacket(9, make([]byte, 100), 0) // the answer is an ICMP error
	buf := make([]byte, MaxRead)
	var failure error
	if n := testing.AllocsPerRun(100, func() {
		if err := w.Writev(pkt); err != nil {
			failure = err
		}
		if _, err := q.TryRead(buf); err != nil {
			failure = err
		}
	}); n != 0 || failure != nil {
		t.Errorf("%v allocations per write and read, error %v", n, failure)
	}
}
