package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/coreos/flannel/subnet/etcdv3"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// relay lets programs on the node reach an etcd of the test's own namespace at
// an address of the node's loopback, which it returns.
func (n *node) relay(to string) string {
	n.t.Helper()
	ln, err := n.Listen(n.t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer in.Close()
				out, err := new(net.Dialer).DialContext(ctx, "tcp", to)
				if err != nil {
					return
				}
				defer out.Close()
				stop := context.AfterFunc(ctx, func() { in.Close(); out.Close() })
				defer stop()
				wg.Go(func() { _, _ = io.Copy(out, in); out.Close() })
				_, _ = io.Copy(in, out)
			})
		}
	})
	n.t.Cleanup(func() {
		cancel()
		ln.Close()
		wg.Wait()
	})
	return ln.Addr().String()
}

// Neither password nor key is told, in whatever the program writes or serves,
// whether all is well or not.
func TestNoSecretIsTold(t *testing.T) {
	c := newCluster(t, "3") // for its lab
	const (
		password = "sesame-0815"
		wrong    = "open-4711"
		psk      = "ak4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="
		nextPSK  = "bk4L9d0cCkrdWhPRJ5Y1U0r5QN1dZPQkBwJAlLM/d1o="
	)
	etcd := etcdserver.Start(t, etcdserver.Options{TLS: true, User: "net", Password: password, Prefix: prefix})
	r, err := etcdv3.New(etcd.ClientConfig(prefix))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	config := func(psk string) []byte {
		return fmt.Appendf(nil, `{"Network": %q, "Backend": {"Type": "wireguard", "Datapath": "userspace", "PSK": %q}}`, network, psk)
	}
	if _, err := r.PublishConfig(t.Context(), config(psk)); err != nil {
		t.Fatal(err)
	}
	a := newNode(t, c.lab.Host("a"), "", "-v=9")
	login := []string{"-etcd-endpoints=https://" + a.relay(strings.TrimPrefix(etcd.URL(), "https://")), "-etcd-cafile=" + etcd.CAFile, "-etcd-username=net"}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}

	locked := a.launch(append(login, "-etcd-password="+wrong)...)
	locked.says("waiting=0s")
	locked.stop()
	known := append(login, "-etcd-password-file="+file)
	d := a.launch(known...)
	d.ready()
	d.says("etcd=https://127.0.0.1:")
	said := map[string]string{"log": d.log.String(), "log of a failed login": locked.log.String()}
	for _, want := range []string{"subnet=", "iface=eth0", "iface_reason=", "datapath=userspace", "datapath_reason=", "mtu=1420", "expires=", "ip_masq=false", `etcd_user="net"`, "etcd_api=3", "status_addr=127.0.0.1:8286"} {
		if i := strings.Index(said["log"], "] ready "); i < 0 || !strings.Contains(strings.SplitN(said["log"][i:], "\n", 2)[0], want) {
			t.Errorf("no %q in the line of the start:\n%s", want, said["log"])
		}
	}
	if err := r.ReplaceConfig(t.Context(), config(psk), config(nextPSK)); err != nil {
		t.Fatal(err)
	}
	for _, page := range []string{"/", statusPage, metricsPage, "/readyz", "/healthz"} {
		said[page] = a.page(page)
	}
	for name, args := range map[string][]string{
		"leases": append([]string{"-json"}, known...), "doctor": append([]string{"-json"}, known...), "status": {"-json"}, "peers": {"-json"},
		"rekey": {"-json", "-subnet-file=" + a.envFile}, "release": append([]string{"10.5.250.0/24"}, known...),
	} {
		out, _ := a.command(append([]string{name}, args...)...)
		said[name] = out
		if name == "leases" && !strings.Contains(out, a.subnet().String()) {
			t.Errorf("leases: %s", out)
		}
	}
	key, err := os.ReadFile(filepath.Join(filepath.Dir(a.envFile), "wgkey"))
	if err != nil {
		t.Fatal(err)
	}
	d.stop()
	said["log in the end"] = d.log.String()
	for where, text := range said {
		for name, secret := range map[string]string{"password": password, "wrong password": wrong, "PSK": psk, "next PSK": nextPSK, "private key": strings.TrimSpace(string(key))} {
			if strings.Contains(text, secret) {
				t.Errorf("%s: the %s is told:\n%s", where, name, text)
			}
		}
	}
}
