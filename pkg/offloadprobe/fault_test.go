package offloadprobe

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/netnstest"
	fault "github.com/coreos/flannel/pkg/netnstest/packetfault"
)

// dataOff is the offset of a byte of the probe's payload behind the IP header of TCP.
const dataOff = 32 + headerLen + 10

// faults are the faults that tests plant in the direction from a to b. parts has the
// header of the containers' packets.
var faults = []struct {
	name        string
	encapsulate bool
	parts       func(fault.Header) []fault.Part
	want        Layer
}{
	{"checksum", true, checksumLeft, Checksum},
	{"checksum without encapsulation", false, checksumLeft, Checksum},
	{"checksum of large packets", true, func(h fault.Header) []fault.Part {
		return parts(fault.LongerThan(1000), fault.ChecksumLeft(h), fault.Drop())
	}, Checksum},
	{"checksum of TCP", true, func(h fault.Header) []fault.Part {
		return parts(fault.Protocol(h, unix.IPPROTO_TCP), fault.ChecksumLeft(h), fault.Drop())
	}, Checksum},
	{"checksum of large packets of TCP", true, func(h fault.Header) []fault.Part {
		return parts(fault.LongerThan(1000), fault.Protocol(h, unix.IPPROTO_TCP), fault.ChecksumLeft(h), fault.Drop())
	}, Checksum},
	{"checksum of odd lengths", true, func(h fault.Header) []fault.Part {
		return parts(fault.OddLength(), fault.ChecksumLeft(h), fault.Drop())
	}, Checksum},
	{"super-packets", true, superPackets, Segmentation},
	{"super-packets without encapsulation", false, superPackets, Segmentation},
	{"frames above the MTU", true, longerThan(1514), Segmentation},
	{"super-packets of TCP", true, func(h fault.Header) []fault.Part {
		return parts(fault.SuperPacket(), fault.Protocol(h, unix.IPPROTO_TCP), fault.Drop())
	}, TCPSegmentation},
	{"super-packets of UDP", true, func(h fault.Header) []fault.Part {
		return parts(fault.SuperPacket(), fault.Protocol(h, unix.IPPROTO_UDP), fault.Drop())
	}, UDPSegmentation},
	{"damage in super-packets of TCP", true, func(h fault.Header) []fault.Part {
		data := h.Offset + h.Len() + dataOff
		return parts(fault.SuperPacket(), fault.Protocol(h, unix.IPPROTO_TCP), fault.Damage(data))
	}, TCPSegmentation},
	{"large packets", true, longerThan(1400), PathMTU},
	{"large packets without encapsulation", false, longerThan(1400), PathMTU},
	{"ECN dropped", true, func(h fault.Header) []fault.Part { return parts(fault.ECNCapable(h), fault.Drop()) }, ECN},
	{"ECN cleared", false, func(h fault.Header) []fault.Part { return parts(fault.ECNCapable(h), fault.ClearECN(h)) }, ECN},
}

func checksumLeft(h fault.Header) []fault.Part { return parts(fault.ChecksumLeft(h), fault.Drop()) }

func superPackets(fault.Header) []fault.Part { return parts(fault.SuperPacket(), fault.Drop()) }

func longerThan(n int32) func(fault.Header) []fault.Part {
	return func(fault.Header) []fault.Part { return parts(fault.LongerThan(n), fault.Drop()) }
}

func parts(p ...fault.Part) []fault.Part { return p }

// layerHere returns the layer that a fault of l has on this kernel. A kernel that cuts
// trains of UDP_SEGMENT before the device has no fault of super-packets of UDP.
func layerHere(t *testing.T, l Layer) Layer {
	t.Helper()
	if l != Segmentation && l != UDPSegmentation || !netnstest.LacksSoftwareTrains(t) {
		return l
	}
	if l == UDPSegmentation {
		netnstest.SoftwareTrains.Skip(t, "the device has none")
	}
	return TCPSegmentation
}

// Each fault is found and named by the host that sends, and by nobody in the other
// direction. It ends when its cause is gone.
func TestFaults(t *testing.T) {
	for _, family := range inet.Families {
		for _, f := range faults {
			t.Run(family.String()+" "+f.name, func(t *testing.T) {
				t.Parallel()
				want := layerHere(t, f.want)
				path := pathKind{family, f.encapsulate}
				a, b := newSides(t, path)
				startBoth(t, a, b)
				planted := fault.Plant(t, b.Host, uplink, f.parts(path.header())...)
				a.has(t, b, want)
				b.eventually(t, a, "without fault, and told of the other direction", func(r Result) bool {
					return r.Tx.Layer == "" && r.Rx.Layer == want
				})
				planted.Remove()
				a.has(t, b, "")
			})
		}
	}
}

// Faults of ECN are found with each way to negotiate it (tcp_ecn in
// Documentation/networking/ip-sysctl.rst). Those from 3 on are accurate ECN.
func TestECNModes(t *testing.T) {
	for mode := range 6 {
		t.Run(fmt.Sprint("tcp_ecn=", mode), func(t *testing.T) {
			t.Parallel()
			a, b := newSides(t, inside)
			for _, s := range []*side{a, b} {
				err := s.Do(func() error {
					return os.WriteFile("/proc/sys/net/ipv4/tcp_ecn", []byte{byte('0' + mode)}, 0)
				})
				if mode >= 3 && errors.Is(err, unix.EINVAL) {
					netnstest.AccurateECN.Missing(t, err)
					return
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			startBoth(t, a, b)
			a.has(t, b, "")
			h := inside.header()
			for _, harm := range []fault.Part{fault.Drop(), fault.ClearECN(h)} {
				planted := fault.Plant(t, b.Host, uplink, fault.ECNCapable(h), harm)
				a.has(t, b, ECN)
				planted.Remove()
				a.has(t, b, "")
			}
		})
	}
}

// Both hosts have the same fault, as two of the same make do. Each finds its own, and
// learns that of the other. The end of one is not that of the other.
func TestFaultsOfBothDirections(t *testing.T) {
	both := map[string]struct {
		parts func(fault.Header) []fault.Part
		want  Layer
	}{
		"checksum of TCP": {func(h fault.Header) []fault.Part {
			return parts(fault.Protocol(h, unix.IPPROTO_TCP), fault.ChecksumLeft(h), fault.Drop())
		}, Checksum},
		"super-packets": {superPackets, Segmentation},
	}
	for _, family := range inet.Families {
		for name, f := range both {
			t.Run(family.String()+" "+name, func(t *testing.T) {
				t.Parallel()
				path, want := pathKind{family, true}, layerHere(t, f.want)
				a, b := newSides(t, path)
				startBoth(t, a, b)
				planted := fault.Plant(t, b.Host, uplink, f.parts(path.header())...)
				fault.Plant(t, a.Host, uplink, f.parts(path.header())...)
				a.has(t, b, want)
				b.has(t, a, want)
				for _, s := range [][2]*side{{a, b}, {b, a}} {
					s[0].eventually(t, s[1], "told of both directions", func(r Result) bool { return r.Tx.Layer == want && r.Rx.Layer == want })
				}
				planted.Remove()
				a.eventually(t, b, "without a fault to it", func(r Result) bool { return r.Tx.Layer == "" && r.Rx.Layer == want })
				b.eventually(t, a, "without a fault from it", func(r Result) bool { return r.Tx.Layer == want && r.Rx.Layer == "" })
			})
		}
	}
}

// A host learns at once that the probes of another find a fault, and not with its own
// next check.
func TestNewsOfAFault(t *testing.T) {
	t.Parallel()
	a, b := newSides(t, inside)
	want := layerHere(t, Segmentation)
	startBoth(t, a, b)
	fault.Plant(t, b.Host, uplink, superPackets(inside.header())...)
	a.has(t, b, want)
	until(t, "told", func() bool { return b.prober.Results()[a.subnet].Rx.Layer == want })
}

// Packets that the receiver merges are told from those that the sender segments: with
// frames of the MTU on the wire, the first are lost behind the merging.
func TestReceiveMerging(t *testing.T) {
	t.Parallel()
	a, b := newSides(t, inside)
	for _, feature := range []string{"tx-udp_tnl-segmentation", "tx-udp_tnl-csum-segmentation", "tx-tcp-segmentation"} {
		a.Exec("ethtool -K " + uplink + " " + feature + " off")
	}
	startBoth(t, a, b)
	fault.Plant(t, b.Host, tunnel, fault.SuperPacket(), fault.Drop())
	a.has(t, b, ReceiveMerging)
}
