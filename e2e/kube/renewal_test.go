package kube

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coreos/flannel/e2e/kube/controlplane"
)

// The certificate of the API server and the token of the service account change
// while the daemon runs: the files have the new ones, and changes arrive again.
func TestCredentialsRenewed(t *testing.T) {
	t.Parallel()
	r := newRig(t, controlplane.Options{})
	n := r.node("n1")
	n.write("token", controlplane.FlannelToken)
	n.write("kubeconfig", strings.ReplaceAll(r.control.Kubeconfig("x"), `token: "x"`, fmt.Sprintf("tokenFile: %q", filepath.Join(n.dir, "token"))))
	r.control.AddNode("n1", "10.5.1.0/24")
	n.launch().ready()

	add := func(number int) {
		t.Helper()
		name, subnet := fmt.Sprintf("peer%d", number), fmt.Sprintf("10.5.%d.0/24", 100+number)
		r.control.AddAnnotated(name, map[string]any{prefix + "kube-subnet-manager": "true", prefix + "backend-type": "vxlan",
			prefix + "public-ip": fmt.Sprintf("192.0.2.%d", number), prefix + "backend-data": fmt.Sprintf(`{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:%02x"}`, number)}, subnet)
		r.eventually("route to "+name, func() error {
			if routes := n.run("ip", "route"); !strings.Contains(routes, subnet) {
				return fmt.Errorf("routes:\n%s", routes)
			}
			return nil
		})
	}
	add(1)

	r.control.Kill("kube-apiserver")
	r.control.RemoveCertificate()
	r.control.StartAPIServer()
	add(2)

	r.control.Kill("kube-apiserver")
	r.control.SetToken("another-token")
	n.write("token", "another-token")
	r.control.StartAPIServer()
	add(3)
}
