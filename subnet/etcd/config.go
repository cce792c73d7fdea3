package etcd

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"strings"
)

// ClientConfig is what a client of either etcd API needs. Validate returns it in
// the form that the clients expect.
type ClientConfig struct {
	// Endpoints are URLs, "http://10.0.0.1:2379" or "https://…". One without a
	// scheme gets https if any of the files below is set, http otherwise.
	Endpoints []string
	// Prefix is the path of the network's keys, e.g. "/coreos.com/network".
	Prefix string
	// Verbatim is true if Validate must not make Prefix canonical: the v3 API has
	// other keys for other slashes.
	Verbatim bool
	// CAFile contains the PEM certificates of authorities that may sign etcd's;
	// empty: the system's. CertFile and KeyFile are this client's; both or neither.
	CAFile, CertFile, KeyFile string
	// Username and Password are the login; both or neither.
	Username, Password string
}

// ConfigKey returns the key of the network configuration.
func (c ClientConfig) ConfigKey() string { return c.Prefix + "/config" }

// LeaseDir returns the common prefix of all lease keys; it ends with a slash.
func (c ClientConfig) LeaseDir() string { return c.Prefix + "/subnets/" }

// Validate checks c without using the network and returns it in canonical form:
// endpoints are scheme://host:port, the prefix begins with a slash and does not
// end with one. It does not read the files; TLS does.
func (c ClientConfig) Validate() (ClientConfig, error) {
	if len(c.Endpoints) == 0 {
		return ClientConfig{}, errors.New("check etcd endpoints: there are none (flag -etcd-endpoints)")
	}
	if !c.Verbatim {
		c.Prefix = strings.TrimSuffix(path.Clean("/"+c.Prefix), "/")
	}
	given, schemes := c.Endpoints, map[string]string{}
	c.Endpoints = make([]string, 0, len(given))
	for _, e := range given {
		u, err := c.endpoint(e)
		if err != nil {
			return ClientConfig{}, fmt.Errorf("check etcd endpoint %q: %w", withoutUser(e), err)
		}
		c.Endpoints = append(c.Endpoints, u.Scheme+"://"+u.Host)
		schemes[u.Scheme] = e
	}
	if len(schemes) > 1 {
		// All endpoints share one connection pool, with one kind of transport.
		return ClientConfig{}, fmt.Errorf("check etcd endpoints: %q and %q mix http and https",
			schemes["http"], schemes["https"])
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return ClientConfig{}, errors.New("check etcd certificate: -etcd-certfile and -etcd-keyfile must be given together")
	case (c.Username == "") != (c.Password == ""):
		return ClientConfig{}, errors.New("check etcd user: -etcd-username and a password must be given together")
	}
	return c, nil
}

func (c ClientConfig) endpoint(e string) (*url.URL, error) {
	e = strings.TrimSpace(e)
	if !strings.Contains(e, "://") {
		if c.usesTLS() {
			e = "https://" + e
		} else {
			e = "http://" + e
		}
	}
	u, err := url.Parse(e)
	switch {
	case err != nil:
		// A *url.Error repeats the URL, which is in the caller's error.
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return nil, err
	case u.Scheme != "http" && u.Scheme != "https":
		return nil, fmt.Errorf("scheme %q is neither http nor https", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("host is missing")
	case u.Port() == "":
		return nil, errors.New("port is missing")
	case u.User != nil:
		return nil, errors.New("user belongs in -etcd-username, not in the URL")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("unexpected text behind the port; the path of the keys is -etcd-prefix")
	case u.Scheme == "http" && c.usesTLS():
		return nil, errors.New("http, but TLS files are given (-etcd-cafile, -etcd-certfile, -etcd-keyfile); they would be ignored")
	}
	return u, nil
}

// withoutUser returns e without what precedes an @, which may be a password.
func withoutUser(e string) string {
	if i := strings.LastIndex(e, "@"); i >= 0 {
		return "…" + e[i:]
	}
	return e
}

func (c ClientConfig) usesTLS() bool {
	return c.CAFile != "" || c.CertFile != "" || c.KeyFile != ""
}

// TLS reads the files that c names. It returns nil for http endpoints. A file
// that cannot be read or contains no certificate is an error. The client's own
// certificate is read again for each connection, so that a renewed one is used
// without a restart.
func (c ClientConfig) TLS() (*tls.Config, error) {
	if len(c.Endpoints) == 0 || !strings.HasPrefix(c.Endpoints[0], "https://") {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read -etcd-cafile: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read -etcd-cafile: %s holds no PEM certificate", c.CAFile)
		}
	}
	if c.CertFile == "" {
		return t, nil
	}
	if _, err := c.clientCertificate(nil); err != nil {
		return nil, err
	}
	t.GetClientCertificate = c.clientCertificate
	return t, nil
}

func (c ClientConfig) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read -etcd-certfile and -etcd-keyfile: %w", err)
	}
	return &cert, nil
}
