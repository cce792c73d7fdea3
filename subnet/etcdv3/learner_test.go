package etcdv3

import (
	"context"
	"errors"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/coreos/flannel/subnet/etcd"
)

// A call goes on to the next endpoint where a learner refuses it, and ends at
// another answer, or when each endpoint has been asked.
func TestPassLearners(t *testing.T) {
	learner, other := rpctypes.ErrGRPCNotSupportedForLearner, errors.New("another error")
	for _, c := range []struct {
		answers []error
		want    error
		calls   int
	}{
		{[]error{nil}, nil, 1},
		{[]error{learner, nil}, nil, 2},
		{[]error{learner, learner, nil}, nil, 3},
		{[]error{learner, other}, other, 2},
		{[]error{other}, other, 1},
		{[]error{learner, learner, learner, nil}, learner, 3},
	} {
		calls := 0
		err := passLearners(3)(t.Context(), "/etcdserverpb.Lease/LeaseGrant", nil, nil, nil,
			func(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
				calls++
				return c.answers[calls-1]
			})
		if !errors.Is(err, c.want) || calls != c.calls {
			t.Errorf("answers %v: %v after %d calls, want %v after %d", c.answers, err, calls, c.want, c.calls)
		}
	}
	if err := withRemedy(rpctypes.Error(learner), etcd.ClientConfig{}); err == nil || !strings.Contains(err.Error(), "promote") {
		t.Errorf("no remedy: %v", err)
	}
}
