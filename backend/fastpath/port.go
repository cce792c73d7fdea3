package fastpath

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	ifinfomsgLen      = 16
	brStateForwarding = 3 // BR_STATE_FORWARDING, linux/if_bridge.h
)

// closedPorts says of bridges' ports that do not take every frame why they do not,
// by index. A port in a state of the spanning tree drops frames, and a locked one
// those of unknown stations (br_handle_frame_finish in net/bridge/br_input.c). It
// runs in the network namespace of the device.
func closedPorts() (map[int]string, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("list ports of bridges: %w", err)
	}
	defer conn.Close()
	request := make([]byte, ifinfomsgLen)
	request[0] = unix.AF_BRIDGE
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.RTM_GETLINK, Flags: netlink.Request | netlink.Dump},
		Data:   request,
	})
	if err != nil {
		return nil, fmt.Errorf("list ports of bridges: %w", err)
	}
	closed := make(map[int]string)
	for _, m := range messages {
		if len(m.Data) < ifinfomsgLen {
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[ifinfomsgLen:])
		if err != nil {
			return nil, fmt.Errorf("list ports of bridges: %w", err)
		}
		index := int(binary.NativeEndian.Uint32(m.Data[4:]))
		for a.Next() {
			if a.Type() == unix.IFLA_PROTINFO {
				a.Nested(func(a *netlink.AttributeDecoder) error {
					if reason := closedBy(a); reason != "" {
						closed[index] = reason
					}
					return nil
				})
			}
		}
		if err := a.Err(); err != nil {
			return nil, fmt.Errorf("list ports of bridges: %w", err)
		}
	}
	return closed, nil
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
