package fastpath

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	ifinfomsgLen      = 16
	brStateForwarding = 3 // BR_STATE_FORWARDING, linux/if_bridge.h
)

// closedPorts returns the reasons why bridges' ports do not take every frame, by index. A
// port in a state of the spanning tree drops frames. A locked port drops those of unknown
// stations (br_handle_frame_finish in net/bridge/br_input.c). closedPorts runs in the
// network namespace of the device.
func closedPorts() (map[int]string, error) {
	closed := make(map[int]string)
	err := dumpLinks(unix.AF_BRIDGE, func(index int, a *netlink.AttributeDecoder) {
		if a.Type() == unix.IFLA_PROTINFO {
			a.Nested(func(a *netlink.AttributeDecoder) error {
				if reason := closedBy(a); reason != "" {
					closed[index] = reason
				}
				return nil
			})
		}
	})
	return closed, err
}

// screenedPorts returns the veth devices whose other end has a program of XDP in the
// driver, by index. bpf_redirect_peer passes that program by. The program bounds the MTU
// of this end (veth_xdp_set in drivers/net/veth.c). screenedPorts runs in the network
// namespace of the device.
func screenedPorts() (map[int]bool, error) {
	const usual = math.MaxUint16 // ETH_MAX_MTU, linux/if_ether.h
	screened := make(map[int]bool)
	err := dumpLinks(unix.AF_UNSPEC, func(index int, a *netlink.AttributeDecoder) {
		if a.Type() == unix.IFLA_MAX_MTU && a.Uint32() < usual {
			screened[index] = true
		}
	})
	return screened, err
}

// dumpLinks calls f with each attribute of all interfaces, and their index.
func dumpLinks(family byte, f func(index int, a *netlink.AttributeDecoder)) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	defer conn.Close()
	request := make([]byte, ifinfomsgLen)
	request[0] = family
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return fmt.Errorf("list interfaces: %w", err)
	}
	for _, m := range messages {
		if len(m.Data) < ifinfomsgLen {
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[ifinfomsgLen:])
		if err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
		index := int(binary.NativeEndian.Uint32(m.Data[4:]))
		for a.Next() {
			f(index, a)
		}
		if err := a.Err(); err != nil {
			return fmt.Errorf("list interfaces: %w", err)
		}
	}
	return nil
}

func closedBy(a *netlink.AttributeDecoder) (reason string) {
	for a.Next() {
		switch {
		case a.Type() == unix.IFLA_BRPORT_STATE && a.Uint8() != brStateForwarding:
			reason = "spanning tree"
		case a.Type() == unix.IFLA_BRPORT_LOCKED && a.Uint8() != 0:
			reason = "locked port"
		}
	}
	return reason
}

// ebtables names the tables of legacy ebtables that the kernel has loaded, for all
// network namespaces. Their rules are not looked into.
func ebtables() (found []string) {
	for _, table := range []string{"filter", "nat", "broute"} {
		if _, err := os.Stat(filepath.Join("/sys/module", "ebtable_"+table)); err == nil {
			found = append(found, fmt.Sprintf("table %s of legacy ebtables", table))
		}
	}
	return found
}
