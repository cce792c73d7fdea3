// Package controlplane runs a Kubernetes control plane for tests: etcd, API server,
// controller manager and scheduler, on a host of a lab. All of them are the real
// programs (e2e/kube/parts). They end with the test.
package controlplane

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/flannel/e2e/kube/component"
	"github.com/coreos/flannel/pkg/netnstest"
)

// port is the API server's.
const port = "6443"

// Tokens of the users.
const (
	adminToken     = "admin-token"
	managerToken   = "manager-token"
	schedulerToken = "scheduler-token"
	// ProxyToken is that of kube-proxy on each node.
	ProxyToken = "proxy-token"
	// FlannelToken is that of a user with the rights of the ClusterRole flannel.
	FlannelToken = "flannel-token"
)

// KubeletToken returns the token of a node's kubelet.
func KubeletToken(node string) string { return "kubelet-token-" + node }

// Options are the options of a ControlPlane.
type Options struct {
	// ClusterCIDR are the ranges of podCIDRs; empty: none are assigned.
	ClusterCIDR string
	// Workers are the names of nodes with kubelets. If there are any, the cluster runs
	// pods: it has a scheduler and all controllers.
	Workers []string
	// Etcd is the etcd program; empty: the one that Kubernetes names.
	Etcd string
}

// ControlPlane is a running control plane. Its methods are for the test's own
// goroutine.
type ControlPlane struct {
	t       testing.TB
	host    *netnstest.Host
	options Options
	bin     string // folder of the programs
	dir     string
	running *component.Set
	client  *http.Client
}

// parts builds the programs and returns their folder. A folder that is there is used
// again.
func parts(ctx context.Context) (string, error) {
	script, err := filepath.Abs("parts/build")
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, script).Output()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		err = fmt.Errorf("%w\n%s", err, exit.Stderr)
	}
	if err != nil {
		return "", fmt.Errorf("build Kubernetes: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Start starts a control plane on h, and waits until it answers. The folder of the
// test has the folder parts.
func Start(t testing.TB, h *netnstest.Host, o Options) *ControlPlane {
	t.Helper()
	bin, err := parts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := &ControlPlane{t: t, host: h, options: o, bin: bin, dir: t.TempDir()}
	c.client = h.HTTP()
	transport, ok := c.client.Transport.(*http.Transport)
	if !ok {
		t.Fatalf("the host's HTTP client has a transport of type %T", c.client.Transport)
	}
	// The API server makes its own certificate, which the daemons check.
	transport.TLSClientConfig, transport.DisableKeepAlives = &tls.Config{InsecureSkipVerify: true}, false
	c.running = component.NewSet(t, c.dir)
	t.Cleanup(transport.CloseIdleConnections)
	c.SetToken(FlannelToken)
	c.makeKeys()
	c.write("admin.conf", c.Kubeconfig(adminToken))
	c.write("manager.conf", c.Kubeconfig(managerToken))
	c.write("scheduler.conf", c.Kubeconfig(schedulerToken))
	c.StartEtcd()
	c.StartAPIServer()
	c.grant()
	if o.ClusterCIDR != "" || len(o.Workers) > 0 {
		c.startManager()
	}
	if len(o.Workers) > 0 {
		c.startScheduler()
	}
	return c
}

// SetToken makes token the only one of the user of FlannelToken. The API server
// reads it when it starts.
func (c *ControlPlane) SetToken(token string) {
	c.t.Helper()
	users := []string{
		adminToken + ",admin,admin,system:masters",
		managerToken + ",manager,manager,system:masters",
		schedulerToken + ",system:kube-scheduler,scheduler",
		ProxyToken + ",system:kube-proxy,proxy",
		token + ",flannel,flannel",
	}
	for _, node := range c.options.Workers {
		users = append(users, KubeletToken(node)+",system:node:"+node+","+node+",system:nodes")
	}
	c.write("tokens.csv", strings.Join(users, "\n")+"\n")
}

// RemoveCertificate makes the API server make another certificate when it starts,
// which no client trusts yet.
func (c *ControlPlane) RemoveCertificate() {
	c.t.Helper()
	if err := os.RemoveAll(c.path("certs")); err != nil {
		c.t.Fatal(err)
	}
}

// URL returns the URL of the API server.
func (c *ControlPlane) URL() string { return "https://" + c.host.Addr().Addr().String() + ":" + port }

// makeKeys makes the key pair of service accounts.
func (c *ControlPlane) makeKeys() {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})))
	c.write("sa.pub", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
}

// StartEtcd starts etcd, with the data of before.
func (c *ControlPlane) StartEtcd() {
	c.t.Helper()
	program := c.options.Etcd
	if program == "" {
		program = c.Program("etcd")
	}
	c.start("etcd", program, "--data-dir="+c.path("etcd"), "--unsafe-no-fsync",
		"--listen-client-urls=http://127.0.0.1:2379", "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380")
}

// StartAPIServer starts the API server, and waits until it is ready.
func (c *ControlPlane) StartAPIServer() {
	c.t.Helper()
	c.startAPIServer("kube-apiserver", c.host.Addr().Addr())
	c.AwaitReady()
}

// StartSecond starts a second API server, at another address of the host.
func (c *ControlPlane) StartSecond(at netip.Addr) {
	c.t.Helper()
	c.startAPIServer("second kube-apiserver", at)
}

// startAPIServer starts an API server. All of them use one certificate, which names the
// first one's address and that of the service.
func (c *ControlPlane) startAPIServer(name string, at netip.Addr) {
	c.t.Helper()
	addr := at.String()
	c.start(name, c.Program("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379", "--cert-dir="+c.path("certs"),
		"--bind-address="+addr, "--advertise-address="+addr, "--secure-port="+port, "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/108",
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file="+c.path("sa.pub"),
		"--service-account-signing-key-file="+c.path("sa.key"), "--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction", "--kubelet-preferred-address-types=InternalIP", "--token-auth-file="+c.path("tokens.csv"))
}

// AwaitReady waits until the API server is ready: it answers, and reaches etcd.
func (c *ControlPlane) AwaitReady() {
	c.t.Helper()
	netnstest.EventuallyWithin(c.t, component.StartLimit, "wait for kube-apiserver", func() error {
		code, text, err := c.request(http.MethodGet, "/readyz", "", nil)
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/readyz answers %d: %s", code, text)
		}
		return err
	})
}

// startManager starts the controller manager, which assigns podCIDRs and keeps the
// taint of the network.
func (c *ControlPlane) startManager() {
	c.t.Helper()
	args := []string{"--kubeconfig=" + c.path("manager.conf"), "--leader-elect=false", "--bind-address=127.0.0.1", "--cert-dir=" + c.path("manager"),
		"--service-account-private-key-file=" + c.path("sa.key"), "--root-ca-file=" + c.path("certs/apiserver.crt")}
	if c.options.ClusterCIDR != "" {
		args = append(args, "--allocate-node-cidrs", "--cluster-cidr="+c.options.ClusterCIDR)
	}
	if len(c.options.Workers) == 0 {
		args = append(args, "--controllers=node-ipam-controller,node-lifecycle-controller")
	}
	c.start("kube-controller-manager", c.Program("kube-controller-manager"), args...)
}

// AssignPodCIDRs restarts the controller manager, so that it assigns podCIDRs.
func (c *ControlPlane) AssignPodCIDRs(clusterCIDR string) {
	c.t.Helper()
	c.options.ClusterCIDR = clusterCIDR
	c.Kill("kube-controller-manager")
	c.startManager()
}

func (c *ControlPlane) startScheduler() {
	c.t.Helper()
	c.start("kube-scheduler", c.Program("kube-scheduler"), "--kubeconfig="+c.path("scheduler.conf"), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--cert-dir="+c.path("scheduler"))
}

// Kill ends a program as a power cut does. By SIGTERM an API server stays while its
// etcd is away.
func (c *ControlPlane) Kill(name string) {
	c.t.Helper()
	c.running.Kill(name)
}

// Program returns the path of a program of Kubernetes.
func (c *ControlPlane) Program(name string) string { return filepath.Join(c.bin, name) }

func (c *ControlPlane) start(name, program string, args ...string) {
	c.t.Helper()
	c.running.Start(name, c.host.Command(c.t.Context(), program, args...))
}

func (c *ControlPlane) path(name string) string { return filepath.Join(c.dir, name) }

func (c *ControlPlane) write(name, text string) {
	c.t.Helper()
	if err := os.WriteFile(c.path(name), []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// Kubeconfig returns the text of a kubeconfig for the user of a token.
func (c *ControlPlane) Kubeconfig(token string) string { return c.KubeconfigAt(c.URL(), token) }

// KubeconfigAt returns the text of a kubeconfig with another URL.
func (c *ControlPlane) KubeconfigAt(url, token string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: u, user: {token: %q}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
`, url, c.path("certs/apiserver.crt"), token)
}

// CPUTime returns the time that processors have worked for the API server.
func (c *ControlPlane) CPUTime() time.Duration {
	c.t.Helper()
	return c.running.CPUTime("kube-apiserver")
}
