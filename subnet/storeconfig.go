package subnet

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

// StoreConfig says where the store is and how to speak to it. It is the same
// for every kind of store; Validate turns it into the form the stores work with.
type StoreConfig struct {
	// Endpoints are URLs, "http://10.0.0.1:2379" or "https://…". One without a
	// scheme gets https where any of the files below is named, http where not.
	Endpoints []string
	// Prefix is the path of the network in the store, e.g. "/coreos.com/network".
	Prefix string
	// CAFile holds the PEM certificates that may sign the store's; empty: the
	// system's. CertFile and KeyFile are ours; both or neither.
	CAFile, CertFile, KeyFile string
	// Username and Password, both or neither, log in to a store that demands it.
	Username, Password string
}

// ConfigKey is the key of the network configuration.
func (c StoreConfig) ConfigKey() string { return c.Prefix + "/config" }

// LeaseDir is what every lease key begins with; it ends with a slash.
func (c StoreConfig) LeaseDir() string { return c.Prefix + "/subnets/" }

// Validate checks c without touching the network and returns it in canonical
// form: endpoints are scheme://host:port, the prefix begins with a slash and
// does not end with one. The files are read by TLS, not here.
func (c StoreConfig) Validate() (StoreConfig, error) {
	if len(c.Endpoints) == 0 {
		return StoreConfig{}, errors.New("check store endpoints: there are none (flag -etcd-endpoints)")
	}
	c.Prefix = path.Clean("/" + c.Prefix)
	if c.Prefix == "/" {
		c.Prefix = ""
	}
	given, schemes := c.Endpoints, map[string]string{}
	c.Endpoints = make([]string, 0, len(given))
	for _, e := range given {
		u, err := c.endpoint(e)
		if err != nil {
			return StoreConfig{}, fmt.Errorf("check store endpoint %q: %w", withoutUser(e), err)
		}
		c.Endpoints = append(c.Endpoints, u.Scheme+"://"+u.Host)
		schemes[u.Scheme] = e
	}
	if len(schemes) > 1 {
		// One connection pool serves all endpoints, with one kind of transport.
		return StoreConfig{}, fmt.Errorf("check store endpoints: %q and %q mix http and https",
			schemes["http"], schemes["https"])
	}
	switch {
	case (c.CertFile == "") != (c.KeyFile == ""):
		return StoreConfig{}, errors.New("check store certificate: -etcd-certfile and -etcd-keyfile must be given together")
	case (c.Username == "") != (c.Password == ""):
		return StoreConfig{}, errors.New("check store user: -etcd-username and a password must be given together")
	}
	return c, nil
}

func (c StoreConfig) endpoint(e string) (*url.URL, error) {
	e = strings.TrimSpace(e)
	if !strings.Contains(e, "://") {
		if c.wantsTLS() {
			e = "https://" + e
		} else {
			e = "http://" + e
		}
	}
	u, err := url.Parse(e)
	switch {
	case err != nil:
		// A *url.Error repeats the URL, which the caller names already.
		if ue := (*url.Error)(nil); errors.As(err, &ue) {
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
		return nil, errors.New("user belongs into -etcd-username, not into the URL")
	case strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "":
		return nil, errors.New("there is something behind the port; the path in the store is -etcd-prefix")
	case u.Scheme == "http" && c.wantsTLS():
		return nil, errors.New("http, but TLS files are given (-etcd-cafile, -etcd-certfile, -etcd-keyfile); they would be ignored")
	}
	return u, nil
}

// withoutUser is e for the log: what is before an @ may be a password.
func withoutUser(e string) string {
	if i := strings.LastIndex(e, "@"); i >= 0 {
		return "…" + e[i:]
	}
	return e
}

func (c StoreConfig) wantsTLS() bool {
	return c.CAFile != "" || c.CertFile != "" || c.KeyFile != ""
}

// TLS reads the files that c names. It returns nil where the endpoints are
// http; a file that cannot be read or holds no certificate is an error.
// Our own certificate is read again for each connection, so that one renewed
// on disk is used without a restart.
func (c StoreConfig) TLS() (*tls.Config, error) {
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

func (c StoreConfig) clientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(c.CertFile, c.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("read -etcd-certfile and -etcd-keyfile: %w", err)
	}
	return &cert, nil
}
