package fastpath

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// ruleset is the content of nftables that forwarded packets may meet. It is
// decoded here, since google/nftables passes over expressions that it does not
// know, such as tproxy.
type ruleset struct {
	chains map[chainKey]*chain
	bases  []*chain // in no order
}

type chainKey struct {
	family nftables.TableFamily
	table  string
	name   string
}

type chain struct {
	chainKey
	hook    uint32
	kind    string   // filter, nat or route; empty for a chain without a hook
	devices []string // of family netdev
	rules   [][]expression
}

func (c *chain) String() string {
	return fmt.Sprintf("chain %s of table %s %s", c.name, familyNames[c.family], c.table)
}

var familyNames = map[nftables.TableFamily]string{
	nftables.TableFamilyIPv4: "ip", nftables.TableFamilyINet: "inet",
	nftables.TableFamilyBridge: "bridge", nftables.TableFamilyNetdev: "netdev",
}

const nftaHookDevs = 4 // NFTA_HOOK_DEVS, linux/netfilter/nf_tables.h

// expression is a part of a rule: its kind and its attributes (NFTA_EXPR_*).
type expression struct {
	name string
	data []byte
}

// readRuleset runs in the network namespace of the device.
func readRuleset() (*ruleset, error) {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{Strict: true})
	if err != nil {
		return nil, fmt.Errorf("read nftables rules: %w", err)
	}
	defer conn.Close()
	r := &ruleset{chains: make(map[chainKey]*chain)}
	err = errors.Join(
		dump(conn, unix.NFT_MSG_GETCHAIN, r.addChain),
		dump(conn, unix.NFT_MSG_GETRULE, r.addRule),
	)
	if err != nil {
		return nil, fmt.Errorf("read nftables rules: %w", err)
	}
	return r, nil
}

// dump calls f with the attributes of each object of all families.
func dump(conn *netlink.Conn, kind int, f func(nftables.TableFamily, *netlink.AttributeDecoder)) error {
	messages, err := conn.Execute(netlink.Message{
		Header: netlink.Header{
			Type:  netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<nfnlSubsystemShift | kind),
			Flags: netlink.Request | netlink.Dump,
		},
		Data: make([]byte, nfgenmsgLen),
	})
	if err != nil {
		return err
	}
	for _, m := range messages {
		if len(m.Data) < nfgenmsgLen {
			continue
		}
		a, err := netlink.NewAttributeDecoder(m.Data[nfgenmsgLen:])
		if err != nil {
			return err
		}
		a.ByteOrder = binary.BigEndian
		f(nftables.TableFamily(m.Data[0]), a)
		if err := a.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (r *ruleset) addChain(family nftables.TableFamily, a *netlink.AttributeDecoder) {
	c := &chain{chainKey: chainKey{family: family}}
	hooked := false
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_CHAIN_TABLE:
			c.table = a.String()
		case unix.NFTA_CHAIN_NAME:
			c.name = a.String()
		case unix.NFTA_CHAIN_TYPE:
			c.kind = a.String()
		case unix.NFTA_CHAIN_HOOK:
			hooked = true
			a.Nested(c.addHook)
		}
	}
	r.chains[c.chainKey] = c
	if hooked {
		r.bases = append(r.bases, c)
	}
}

func (c *chain) addHook(a *netlink.AttributeDecoder) error {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_HOOK_HOOKNUM:
			c.hook = a.Uint32()
		case unix.NFTA_HOOK_DEV:
			c.devices = append(c.devices, a.String())
		case nftaHookDevs:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					c.devices = append(c.devices, a.String())
				}
				return nil
			})
		}
	}
	return nil
}

func (r *ruleset) addRule(family nftables.TableFamily, a *netlink.AttributeDecoder) {
	key := chainKey{family: family}
	var rule []expression
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_RULE_TABLE:
			key.table = a.String()
		case unix.NFTA_RULE_CHAIN:
			key.name = a.String()
		case unix.NFTA_RULE_EXPRESSIONS:
			a.Nested(func(a *netlink.AttributeDecoder) error {
				for a.Next() {
					a.Nested(func(a *netlink.AttributeDecoder) error {
						rule = append(rule, expressionOf(a))
						return nil
					})
				}
				return nil
			})
		}
	}
	if c := r.chains[key]; c != nil { // else it was added since the chains were read
		c.rules = append(c.rules, rule)
	}
}

func expressionOf(a *netlink.AttributeDecoder) (e expression) {
	for a.Next() {
		switch a.Type() {
		case unix.NFTA_EXPR_NAME:
			e.name = a.String()
		case unix.NFTA_EXPR_DATA:
			e.data = a.Bytes()
		}
	}
	return e
}
