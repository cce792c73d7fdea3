package etcdv3

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
)

// passLearners repeats a call that a learner refuses, at most once for each
// endpoint. A learner is a member without a vote, as each new one is first. It
// refuses most calls (etcdserver/api/v3rpc/interceptor.go). The balancer sends
// each attempt to the next endpoint, and a refused call has had no effect.
func passLearners(endpoints int) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn,
		invoke grpc.UnaryInvoker, opts ...grpc.CallOption) (err error) {
		for range endpoints {
			if err = invoke(ctx, method, req, reply, cc, opts...); !isLearner(err) {
				return err
			}
		}
		return err
	}
}

func isLearner(err error) bool {
	return err != nil && rpctypes.ErrorDesc(err) == rpctypes.ErrorDesc(rpctypes.ErrGRPCNotSupportedForLearner)
}
