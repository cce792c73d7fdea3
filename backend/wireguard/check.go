package wireguard

import (
	"errors"
	"fmt"

	"github.com/coreos/flannel/pkg/rtnl"
)

// Check implements backend.Checker.
func (n *network) Check() error {
	if err := rtnl.CheckUp(n.links, deviceName, n.address, n.mtu); err != nil {
		return errors.Join(err, n.keeper.Check())
	}
	return errors.Join(n.checkPeers(), n.keeper.Check())
}

func (n *network) checkPeers() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.tunnel == nil {
		return fmt.Errorf("device %s has no tunnel", deviceName)
	}
	if !n.applied {
		return nil
	}
	wrong, err := n.differing(false)
	if err == nil && len(wrong) > 0 {
		err = fmt.Errorf("%d peers of %s differ from their leases, such as %v", len(wrong), deviceName, wrong[0].PublicKey)
	}
	return err
}
