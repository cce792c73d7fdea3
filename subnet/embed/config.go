package embed

import (
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
	defaultListen = "127.0.0.1:2379"
	// quota bounds the database file; etcd refuses writes when it is full. 10,000
	// leases take 1.5 MB, an hour of their changes a small multiple of that.
	quota = 256 << 20 // bytes
	// compactAfter is how long a disconnected watcher can still resume.
	compactAfter = "1h"
	// peerURL is the address for other members. There are none, and nothing
	// listens there. It must not change, as the data contain it.
	peerURL = "http://127.0.0.1:2380"
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
	addr := c.Listen
	if addr == "" {
		addr = defaultListen
	}
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

// endpoint returns the URL by which a client on this host reaches a server that
// listens on addr.
func endpoint(addr string) string {
	host, port, _ := net.SplitHostPort(addr)
	if ip, err := netip.ParseAddr(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.Is6() {
			host = "::1"
		}
	}
	return "http://" + net.JoinHostPort(host, port)
}

// etcdConfig returns the configuration of a cluster of one member, without a port
// for others to join.
func etcdConfig(dir, addr string, log *zap.Logger) (*embed.Config, error) {
	listen, err := url.Parse("http://" + addr)
	if err != nil {
		return nil, err
	}
	advertise, err := url.Parse(endpoint(addr))
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(peerURL)
	if err != nil {
		return nil, err
	}
	c := embed.NewConfig()
	c.Name, c.Dir = "flannel", dir
	c.ListenClientUrls, c.AdvertiseClientUrls = []url.URL{*listen}, []url.URL{*advertise}
	c.ListenPeerUrls, c.AdvertisePeerUrls = nil, []url.URL{*peer}
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, compactAfter
	c.QuotaBackendBytes = quota
	c.EnableGRPCGateway = false // JSON over HTTP: more to attack, slower to stop
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(log)
	return c, nil
}
