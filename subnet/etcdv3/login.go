package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// login is a user's way in. etcd forgets a token that is not used for five
// minutes (--auth-token-ttl), far less than lies between two renewals.
//
// The client's own login is of no use: it sends the old token along when it
// asks for a new one; etcd up to 3.4 refuses that because of the old token; and
// the client takes it for a reason to ask for a new one.
type login struct {
	user, password string
	token          atomic.Pointer[string] // nil before the first login; empty where none is needed
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

// RequireTransportSecurity implements credentials.PerRPCCredentials. Whether to
// have TLS is for the endpoints to say.
func (l *login) RequireTransportSecurity() bool { return false }

// renew gets a new token.
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

// do calls f with a token. Where etcd refuses it, nothing has been done, and f
// is called again with a new one.
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
