package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/coreos/flannel/cni/conflist"
	"github.com/coreos/flannel/subnet"
)

const (
	// podBridge is the default name of CNI's bridge plugin.
	podBridge = "cni0"
	// cniFolder is where container runtimes look for their network.
	cniFolder = "/etc/cni/net.d"
	// proxyMode is where kube-proxy shows its mode (its -metrics-bind-address).
	proxyMode = "http://127.0.0.1:10249/proxyMode"
)

// checkCluster checks the store in Kubernetes.
func checkCluster(f *facts) finding {
	const edit = "kubectl -n kube-flannel edit configmap kube-flannel-cfg"
	switch s := f.store; {
	case errors.Is(s.err, subnet.ErrNoConfig):
		return failed(edit, "no network configuration: %v", s.err)
	case s.err != nil:
		return failed("kubectl get --raw /readyz", "is not available, so leases and peers do not change: %v", s.err)
	case f.configErr != nil:
		return failed(edit, "the network configuration is not valid: %v", f.configErr)
	default:
		return okay("network %s, backend %s", f.config.Networks(), f.config.BackendType)
	}
}

// checkPodBridge compares the address of cni0 with the subnet. It keeps a former
// one after the Node was given another podCIDR, and pods then get no address.
func checkPodBridge(f *facts) finding {
	if !f.inKubernetes() || f.report == nil || f.report.Lease == nil || !f.report.Lease.Subnet.IsValid() {
		return finding{}
	}
	bridge, err := net.InterfaceByName(podBridge)
	if err != nil {
		return finding{} // no pod yet, or a bridge of another name
	}
	addrs, err := bridge.Addrs()
	if err != nil {
		return warn("ip addr show "+podBridge, "cannot be read: %v", err)
	}
	return judgePodBridge(addrs, f.report.Lease.Subnet)
}

func judgePodBridge(addrs []net.Addr, own netip.Prefix) finding {
	var others []string
	for _, a := range addrs {
		p, err := netip.ParsePrefix(a.String())
		if err == nil && p.Addr().Is4() && p.Masked() != own {
			others = append(others, p.String())
		}
	}
	if others != nil {
		return failed("ip link delete "+podBridge+", and delete the pods of this node",
			"has the address %s, and the subnet is %v: new pods get no network", strings.Join(others, ", "), own)
	}
	return okay("has an address of %v, or none", own)
}

// checkCNIFiles looks for a configuration that the container runtime takes in place
// of flannel's: it takes the first by name.
func checkCNIFiles(f *facts, folder string) finding {
	if !f.inKubernetes() {
		return finding{}
	}
	files, err := conflist.Files(folder)
	if err != nil {
		return warn("ls "+folder, "cannot be read: %v", err)
	}
	flannel := slices.IndexFunc(files, func(path string) bool {
		text, err := os.ReadFile(path)
		return err == nil && strings.Contains(string(text), `"flannel"`)
	})
	switch {
	case flannel < 0:
		return warn("kubectl -n kube-flannel rollout restart ds kube-flannel-ds", "no file in %s uses flannel, so pods get no network or another one", folder)
	case flannel > 0:
		return failed(fmt.Sprintf("mv %s /root/", files[0]), "%s comes before %s, so pods get another network", filepath.Base(files[0]), filepath.Base(files[flannel]))
	}
	return okay("%s is the first in %s", filepath.Base(files[0]), folder)
}

// checkProxy reports the mode of kube-proxy, which changes the same traffic.
func checkProxy(ctx context.Context, f *facts) finding {
	if !f.inKubernetes() {
		return finding{}
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, proxyMode, nil)
	if err != nil {
		return warn("", "%v", err) // unreachable: the URL is constant
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return warn("curl "+proxyMode, "does not answer: without it, or something in its place, Services do not work: %v", err)
	}
	defer resp.Body.Close()
	mode, err := io.ReadAll(io.LimitReader(resp.Body, 64))
	if err != nil || resp.StatusCode != http.StatusOK {
		return warn("curl "+proxyMode, "does not show its mode: %s %v", resp.Status, err)
	}
	return okay("runs in mode %s", strings.TrimSpace(string(mode)))
}
