package etcdv3

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	"github.com/coreos/flannel/subnet/etcd"
)

// A refusal keeps its cause and gets the remedy, whether it comes from a call or a
// watch, and however it is wrapped; another error stays what it is.
func TestRemedies(t *testing.T) {
	cfg := etcd.ClientConfig{Username: "joe", Prefix: "/net"}
	for cause, want := range map[error]string{
		rpctypes.ErrNoSpace:          "etcdctl alarm disarm",
		rpctypes.ErrCorrupt:          "replace that member",
		rpctypes.ErrPermissionDenied: `user "joe" needs a role with readwrite rights to all keys that begin with /net/`,
		rpctypes.ErrUserEmpty:        "-etcd-username and -etcd-password",
		rpctypes.ErrAuthFailed:       "look at -etcd-username=joe",
	} {
		for _, err := range []error{
			cause, fmt.Errorf("log in: %w", cause),
			errors.New("rpc error: code = Unknown desc = " + cause.Error()),
		} {
			if got := withRemedy(err, cfg); !errors.Is(got, err) || !strings.Contains(got.Error(), want) {
				t.Errorf("%v: %v, want %q in it", err, got, want)
			}
		}
	}
	if other := errors.New("connection refused"); withRemedy(other, cfg) != other {
		t.Errorf("%v: has a remedy", other)
	}
}
