package etcdv3

import (
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/coreos/flannel/subnet/etcd"
)

// withRemedy adds the operator's remedy to a refusal of etcd's.
func withRemedy(err error, cfg etcd.ClientConfig) error {
	remedy := ""
	known := err
	if _, refusal, ok := strings.Cut(err.Error(), "desc = "); ok { // a watch returns gRPC's text
		known = rpctypes.Error(errors.New(refusal))
	}
	switch {
	case errors.Is(known, rpctypes.ErrNoSpace):
		remedy = "its database is full, and leases are renewed but not made until there is room: etcdctl compact, etcdctl defrag, then etcdctl alarm disarm (etcd's --quota-backend-bytes, --auto-compaction-retention)"
	case errors.Is(known, rpctypes.ErrCorrupt):
		remedy = "a member's data differ from the others' (etcdctl alarm list): replace that member, then etcdctl alarm disarm"
	case errors.Is(known, rpctypes.ErrPermissionDenied):
		remedy = fmt.Sprintf("user %q needs a role with readwrite rights to all keys that begin with %s/", cfg.Username, cfg.Prefix)
	case errors.Is(known, rpctypes.ErrUserEmpty):
		remedy = "it requires a user: -etcd-username and -etcd-password"
	case errors.Is(known, rpctypes.ErrAuthFailed):
		remedy = fmt.Sprintf("look at -etcd-username=%s and -etcd-password", cfg.Username)
	case isLearner(known):
		remedy = "every endpoint is a learner: etcdctl member promote, or name a member with a vote in -etcd-endpoints"
	default:
		return err
	}
	return fmt.Errorf("%w; %s", err, remedy)
}
