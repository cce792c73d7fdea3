package etcdv3

import (
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/coreos/flannel/subnet"
)

const (
	// A ping after keepAliveTime of silence, unanswered for keepAliveTimeout,
	// ends a connection whose other end has vanished. etcd by default refuses
	// clients that ping more often than every 5 s (--grpc-keepalive-min-time).
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 5 * time.Second
	// dialLimit is shorter than roundTripLimit, so that a call meets the reason
	// why there is no connection before its own time is up.
	dialLimit = 3 * time.Second
	// redialMost caps the pause between attempts to connect; gRPC's default of
	// two minutes would keep us away from a store that is long back. Together
	// with the caller's own pause (pkg/backoff) it has to stay below the 5 s in
	// which a host promises to know what is new.
	redialMost = time.Second
	// window is how much etcd may send before we have read it, on a connection and
	// for each call. gRPC would find out what a connection can carry, with a ping
	// for each message after a pause: a heartbeat would be twice the messages. This
	// is enough for 1 Gb/s over 8 ms.
	window = 1 << 20
	// attempts at one call, pauses of 25 ms between, for a connection that has
	// just broken. The client repeats only reads, and writes that never left
	// this host.
	attempts = 3
)

// clientConfig is what the etcd client is made from. Its limit for answers is
// 2 GiB where gRPC's own is 4 MiB, and a List needs it to be (about 150 bytes a
// lease). The client's logger is silent: what it would say comes back as error.
func clientConfig(cfg subnet.StoreConfig, tls *tls.Config, l *login) clientv3.Config {
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 200*time.Millisecond, redialMost
	return clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  tls,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		MaxUnaryRetries:      attempts,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: dialLimit}),
			grpc.WithChainUnaryInterceptor(failFast),
			grpc.WithPerRPCCredentials(l),
			grpc.WithInitialWindowSize(window),
			grpc.WithInitialConnWindowSize(window),
		},
	}
}
