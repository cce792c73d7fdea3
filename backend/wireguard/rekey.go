package wireguard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	log "github.com/golang/glog"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/backend"
	"github.com/coreos/flannel/pkg/ratelog"
	"github.com/coreos/flannel/subnet"
)

// sessionLifetime is how long a session may carry packets (REJECT_AFTER_TIME,
// section 6.1 of the paper).
const sessionLifetime = 3 * time.Minute

var _ backend.Rekeyer = (*tunnels)(nil)

// Rekey replaces the private key by a new one and returns the attributes to
// publish. Packets in flight still arrive. Later ones wait in the tunnel until
// the peers know the new public key and have a session; WireGuard's queue takes
// 128 or 1024 for each peer. Rekey also spends our own initiations, in vain:
// WireGuard sends none for 5 s after them, so none crosses the peer's.
func (t *tunnels) Rekey() (subnet.Attrs, error) {
	key, err := makeKey(t.runDir)
	if err != nil {
		return subnet.Attrs{}, err
	}
	var ends []end
	for i, n := range t.networks {
		old, err := n.setKey(key)
		if err != nil {
			// The lease keeps the old key until the next start, which reads the new.
			for _, done := range t.networks[:i] {
				_, undo := done.setKey(old)
				err = errors.Join(err, undo)
			}
			return subnet.Attrs{}, err
		}
		ends = append(ends, n.end)
	}
	return attrs(ends, key), nil
}

// setKey makes a key that of the tunnel, and returns the one before.
func (n *network) setKey(key wgtypes.Key) (old wgtypes.Key, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	old = n.key
	if n.tunnel != nil {
		if err := n.tunnel.configure(wgtypes.Config{PrivateKey: &key}); err != nil {
			return old, fmt.Errorf("set key of %s: %w", n.end.device, err)
		}
	}
	n.key = key
	inUse := func(p wgtypes.Peer) bool { return time.Since(p.LastHandshakeTime) < sessionLifetime }
	if _, err := n.initiateWhere(inUse, false); err != nil {
		ratelog.Warningf("initiate sessions with peers: %v", err)
	}
	log.Infof("replaced key device=%s public_key=%v", n.end.device, key.PublicKey())
	return old, nil
}

// addKeys returns the changes that add the keys that replace others, without a
// subnet. wireguard-go drops packets to a key while it adds it, so the subnet moves
// to the key in a later change.
func (n *network) addKeys(before, after map[wgtypes.Key]peerConfig) (peers []wgtypes.PeerConfig) {
	for _, key := range n.replaced {
		_, known := before[key]
		if c, wanted := after[key]; wanted && !known {
			peers = append(peers, c.encode(key, nil))
		}
	}
	return peers
}

// retainOldKeys returns peers with the removal of each replaced key made into
// the removal of its subnets: to remove a key discards the packets that wait for
// encryption with it.
func (n *network) retainOldKeys(peers []wgtypes.PeerConfig, before map[wgtypes.Key]peerConfig) []wgtypes.PeerConfig {
	var retained []wgtypes.PeerConfig
	for _, p := range peers {
		if _, old := n.replaced[p.PublicKey]; old && p.Remove {
			if len(before[p.PublicKey].allowed) == 0 {
				continue
			}
			p = wgtypes.PeerConfig{PublicKey: p.PublicKey, UpdateOnly: true, ReplaceAllowedIPs: true}
		}
		retained = append(retained, p)
	}
	return retained
}

// dropOldKeys removes from the tunnel the keys that were replaced by one of keys.
func (n *network) dropOldKeys(keys []wgtypes.Key) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := len(n.replaced)
	maps.DeleteFunc(n.replaced, func(_, by wgtypes.Key) bool { return slices.Contains(keys, by) })
	if n.tunnel == nil || len(n.replaced) == before {
		return nil
	}
	return n.reconcile(false)
}
