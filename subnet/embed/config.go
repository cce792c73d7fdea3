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
	// quota bounds the database file. 10000 leases are 1.5 MB, an hour of their
	// changes a small multiple; full, etcd refuses writes.
	quota = 256 << 20 // bytes
	// compactAfter is how long a watcher may be away and still resume.
	compactAfter = "1h"
	// nobody is the address at which other members would find us. There are
	// none, we do not listen there, and it must not change: it is in the data.
	nobody = "http://127.0.0.1:2380"
)

// Config says where the server keeps its data and listens.
type Config struct {
	// Dir is the data directory, made with mode 0700 if it does not exist.
	Dir string
	// Listen is the client address, "host:port" or "http://host:port"; empty:
	// 127.0.0.1:2379. On another address than loopback other hosts use it too,
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

// loopback reports whether only this host reaches addr.
func loopback(addr string) bool {
	host, _, _ := net.SplitHostPort(addr)
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

// endpoint is where this host's own client finds a server that listens on addr.
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

// etcdConfig is that of a cluster of one, which opens no port for others to
// join it.
func etcdConfig(dir, addr string, log *zap.Logger) (*embed.Config, error) {
	listen, err := url.Parse("http://" + addr)
	if err != nil {
		return nil, err
	}
	advertise, err := url.Parse(endpoint(addr))
	if err != nil {
		return nil, err
	}
	peer, err := url.Parse(nobody)
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
