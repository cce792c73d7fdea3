package embed

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
)

const (
	// quota bounds the database file; etcd refuses writes when it is full. 10,000
	// leases take 1.5 MB, an hour of their changes a small multiple of that.
	quota = 256 << 20 // bytes
	// compactAfter is how long a disconnected watcher can still resume.
	compactAfter = "1h"
	// peerAddr is the address for other members. There are none, and nothing
	// listens there. It must not change, as the data contain it.
	peerAddr = "127.0.0.1:2380"
)

// Config is the configuration of a Server.
type Config struct {
	// Dir is the data directory. It is created with mode 0700 if it is missing.
	Dir string
	// Listen is the client address, "host:port" or "http://host:port"; empty:
	// 127.0.0.1:2379. An address other than loopback serves other hosts too,
	// without TLS and without a login.
	Listen string
}

// listenAddr checks Listen and returns it as host:port.
func (c Config) listenAddr() (string, error) {
	addr := cmp.Or(c.Listen, "127.0.0.1:2379")
	if scheme, rest, ok := strings.Cut(addr, "://"); ok {
		if scheme != "http" {
			return "", fmt.Errorf("scheme %q is not http", scheme)
		}
		addr = strings.TrimSuffix(rest, "/")
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
		return "", fmt.Errorf("port %q is not in 1..65535", port)
	}
	if host == "" {
		return "", errors.New("host is missing; 0.0.0.0 means all addresses")
	}
	if _, err := netip.ParseAddr(host); err != nil && host != "localhost" {
		return "", fmt.Errorf("host %q is not an IP address", host)
	}
	return addr, nil
}

// loopback reports whether addr is reachable from this host only.
func loopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// reachable returns the address by which a client on this host reaches a server that
// listens on addr.
func reachable(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return net.JoinHostPort(host, port)
}

func httpURL(addr string) []url.URL { return []url.URL{{Scheme: "http", Host: addr}} }

// etcdConfig returns the configuration of a cluster of one member, without a port
// for others to join.
func etcdConfig(dir, addr string, log *zap.Logger) *embed.Config {
	c := embed.NewConfig()
	c.Name, c.Dir = "flannel", dir
	c.ListenClientUrls, c.AdvertiseClientUrls = httpURL(addr), httpURL(reachable(addr))
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, httpURL(peerAddr)
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactAfter
	c.QuotaBackendBytes = quota
	c.EnableGRPCGateway = false // JSON over HTTP: more to attack, slower to stop
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return c
}
