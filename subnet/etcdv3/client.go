package etcdv3

import (
	"crypto/tls"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/coreos/flannel/subnet/etcd"
)

const (
	// The client pings after keepAliveTime without traffic. A ping without an
	// answer for keepAliveTimeout ends the connection. etcd refuses clients that
	// ping more often than every 5 s by default (--grpc-keepalive-min-time).
	keepAliveTime    = 10 * time.Second
	keepAliveTimeout = 5 * time.Second
	// dialTimeout is shorter than roundTripTimeout, so that a call fails with the
	// reason of a failed connection, not by its own time limit.
	dialTimeout = 3 * time.Second
	// maxRedialDelay caps the pause between attempts to connect; gRPC's default
	// is two minutes. Together with the caller's own pause (pkg/backoff) it must
	// stay below 5 s, in which a host promises to learn of changes.
	maxRedialDelay = time.Second
	// windowSize is the flow-control window of a connection and of each call, in
	// bytes. A fixed window stops gRPC from measuring the connection by a ping for
	// each message after a pause, which would double a heartbeat's messages. The
	// size is enough for 1 Gb/s over 8 ms.
	windowSize = 1 << 20
	// maxAttempts bounds the attempts at one call over a broken connection, 25 ms
	// apart. The client repeats only reads, and writes that were never sent.
	maxAttempts = 3
)

// clientConfig returns the configuration of the etcd client. Its size limit for
// answers is 2 GiB; gRPC's own of 4 MiB is too small for a List, of about 150
// bytes a lease. All answers are observed by h. The client does not log: failures are returned as errors.
func clientConfig(cfg etcd.ClientConfig, tls *tls.Config, l *login, h *etcd.History) clientv3.Config {
	redial := backoff.DefaultConfig
	redial.BaseDelay, redial.MaxDelay = 200*time.Millisecond, maxRedialDelay
	return clientv3.Config{
		Endpoints:            cfg.Endpoints,
		TLS:                  tls,
		DialKeepAliveTime:    keepAliveTime,
		DialKeepAliveTimeout: keepAliveTimeout,
		MaxUnaryRetries:      maxAttempts,
		Logger:               zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: dialTimeout}),
			grpc.WithChainUnaryInterceptor(failFast, passLearners(len(cfg.Endpoints)), observeCalls(h)),
			grpc.WithChainStreamInterceptor(observeStreams(h)),
			// HTTPS_PROXY is for the web. The v2 client does not go by it either.
			grpc.WithNoProxy(),
			grpc.WithPerRPCCredentials(l),
			grpc.WithInitialWindowSize(windowSize),
			grpc.WithInitialConnWindowSize(windowSize),
		},
	}
}
