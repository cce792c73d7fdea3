package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// login holds a user's token and renews it. etcd discards a token that is not
// used for five minutes (--auth-token-ttl), less than the time between renewals
// of a lease.
//
// The client's own login cannot be used: it sends the old token with the request
// for a new one. etcd up to 3.4 refuses the request because of the old token, and
// the client reacts by requesting a new one.
type login struct {
	user, password string
	token          atomic.Pointer[string] // nil before the first login; empty if none is needed
}

// loggingIn marks the context of a request for a token.
type loggingIn struct{}

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (l *login) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	token := l.token.Load()
	if token == nil || *token == "" || ctx.Value(loggingIn{}) != nil {
		return nil, nil
	}
	return map[string]string{rpctypes.TokenFieldNameGRPC: *token}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials. The
// endpoints decide whether TLS is used.
func (l *login) RequireTransportSecurity() bool { return false }

// renew requests a new token.
func (l *login) renew(ctx context.Context, c *clientv3.Client) error {
	resp, err := c.Authenticate(context.WithValue(ctx, loggingIn{}, true), l.user, l.password)
	switch {
	case errors.Is(err, rpctypes.ErrAuthNotEnabled):
		l.token.Store(new(string))
	case err != nil:
		return fmt.Errorf("log in as %q: %w", l.user, err)
	default:
		l.token.Store(&resp.Token)
	}
	return nil
}

// do calls f with a token. If etcd refuses the token, f had no effect, and do
// calls it again with a new one.
func (l *login) do(ctx context.Context, c *clientv3.Client, f func(context.Context, *clientv3.Client) error) error {
	if l.user == "" {
		return f(ctx, c)
	}
	if l.token.Load() == nil {
		if err := l.renew(ctx, c); err != nil {
			return err
		}
	}
	err := f(ctx, c)
	if !errors.Is(err, rpctypes.ErrInvalidAuthToken) && !errors.Is(err, rpctypes.ErrAuthOldRevision) &&
		!errors.Is(err, rpctypes.ErrUserEmpty) {
		return err
	}
	if err := l.renew(ctx, c); err != nil {
		return err
	}
	return f(ctx, c)
}
