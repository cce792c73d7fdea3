package etcd_test

import (
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

func TestClientConfigCanonical(t *testing.T) {
	for _, test := range []struct {
		in        etcd.ClientConfig
		endpoints []string
		configKey string
	}{
		{etcd.ClientConfig{Endpoints: []string{"http://127.0.0.1:4001", " http://127.0.0.1:2379/"}, Prefix: "/coreos.com/network"},
			[]string{"http://127.0.0.1:4001", "http://127.0.0.1:2379"}, "/coreos.com/network/config"},
		{etcd.ClientConfig{Endpoints: []string{"etcd.example.com:2379"}, Prefix: "coreos.com//network/"},
			[]string{"http://etcd.example.com:2379"}, "/coreos.com/network/config"},
		{etcd.ClientConfig{Endpoints: []string{"[fd00::1]:2379"}, CAFile: "ca", Prefix: "/"},
			[]string{"https://[fd00::1]:2379"}, "/config"},
		{etcd.ClientConfig{Endpoints: []string{"https://a:1", "https://b:2"}, CertFile: "c", KeyFile: "k"},
			[]string{"https://a:1", "https://b:2"}, "/config"},
	} {
		got, err := test.in.Validate()
		if err != nil {
			t.Errorf("Validate(%+v): %v", test.in, err)
			continue
		}
		if !slices.Equal(got.Endpoints, test.endpoints) || got.ConfigKey() != test.configKey ||
			got.LeaseDir() != strings.TrimSuffix(test.configKey, "config")+"subnets/" {
			t.Errorf("Validate(%+v) = %+v", test.in, got)
		}
	}
}

func TestClientConfigRefused(t *testing.T) {
	for want, c := range map[string]etcd.ClientConfig{
		"-etcd-endpoints":  {},
		"neither http":     {Endpoints: []string{"ftp://a:1"}},
		"host is missing":  {Endpoints: []string{"http://:1"}},
		"port is missing":  {Endpoints: []string{"http://a"}},
		"-etcd-username,":  {Endpoints: []string{"http://u:hidden@a:1"}},
		"behind the port":  {Endpoints: []string{"http://a:1/path"}},
		"would be ignored": {Endpoints: []string{"http://a:1"}, CAFile: "ca"},
		"mix http":         {Endpoints: []string{"http://a:1", "https://b:1"}},
		"-etcd-keyfile":    {Endpoints: []string{"https://a:1"}, CertFile: "cert"},
		"-etcd-certfile":   {Endpoints: []string{"https://a:1"}, KeyFile: "key"},
		"a password":       {Endpoints: []string{"http://a:1"}, Username: "u"},
		"-etcd-username a": {Endpoints: []string{"http://a:1"}, Password: "hidden"},
		"invalid port":     {Endpoints: []string{"http://a:hidden"}},
	} {
		_, err := c.Validate()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Validate(%+v): %v, want %q in it", c, err, want)
		}
	}
}

// TestClientConfigPassword: the error for a URL with a password does not contain
// the password.
func TestClientConfigPassword(t *testing.T) {
	for _, e := range []string{"http://u:hidden@a:1", "http://u:hidden@a:port", "http://u:hidden%zz@a:1"} {
		_, err := etcd.ClientConfig{Endpoints: []string{e}}.Validate()
		if err == nil || strings.Contains(err.Error(), "hidden") {
			t.Errorf("Validate: %v", err)
		}
	}
}

func TestClientConfigTLS(t *testing.T) {
	srv := etcdserver.Start(t, etcdserver.Options{ClientCert: true})
	notPEM := filepath.Join(t.TempDir(), "not.pem")
	if err := os.WriteFile(notPEM, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	u, err := url.Parse(srv.URL())
	if err != nil {
		t.Fatal(err)
	}
	https := []string{"https://" + u.Host}
	for name, test := range map[string]struct {
		c         etcd.ClientConfig
		ca, cert  bool
		wantError string
	}{
		"CA alone":        {c: etcd.ClientConfig{Endpoints: https, CAFile: srv.CAFile}, ca: true},
		"certificate too": {c: etcd.ClientConfig{Endpoints: https, CAFile: srv.CAFile, CertFile: srv.CertFile, KeyFile: srv.KeyFile}, ca: true, cert: true},
		"system's CAs":    {c: etcd.ClientConfig{Endpoints: https}},
		"no CA file":      {c: etcd.ClientConfig{Endpoints: https, CAFile: notPEM + "x"}, wantError: "-etcd-cafile"},
		"CA not PEM":      {c: etcd.ClientConfig{Endpoints: https, CAFile: notPEM}, wantError: "holds no PEM certificate"},
		"cert not PEM":    {c: etcd.ClientConfig{Endpoints: https, CertFile: notPEM, KeyFile: srv.KeyFile}, wantError: "-etcd-certfile"},
		"wrong key":       {c: etcd.ClientConfig{Endpoints: https, CertFile: srv.CAFile, KeyFile: srv.KeyFile}, wantError: "-etcd-keyfile"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := test.c.TLS()
			if test.wantError != "" {
				if err == nil || !strings.Contains(err.Error(), test.wantError) {
					t.Errorf("TLS: %v, want %q in it", err, test.wantError)
				}
				return
			}
			if err != nil || got == nil || got.InsecureSkipVerify || (got.RootCAs != nil) != test.ca || (got.GetClientCertificate != nil) != test.cert {
				t.Errorf("TLS = %+v, %v", got, err)
			}
		})
	}
	if got, err := (etcd.ClientConfig{Endpoints: []string{"http://a:1"}}).TLS(); got != nil || err != nil {
		t.Errorf("TLS of an http endpoint = %v, %v", got, err)
	}
}
