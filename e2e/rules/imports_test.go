package rules

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"testing"
)

// layers lists the packages of this module and the packages that each may
// import. "x/..." is x and everything below it. A package that no row matches
// breaks the rule; add a row for a new package. The first row that matches counts.
var layers = []struct{ from, to string }{
	{".", "cli cni daemon pkg/logpipe"},
	{"cli", "backend backend/all cni/conflist cni/install cni/reservation subnet subnet/store pkg/..."},
	{"daemon", "backend backend/all cni/conflist subnet subnet/embed subnet/kube subnet/store pkg/..."},

	{"cni", "cni/bundled cni/bundled/link cni/natchain cni/reservation pkg/subnetfile"},
	{"cni/flannel", "cni"},
	{"cni/install", "cni cni/bundled cni/bundled/link pkg/atomicfile"},
	{"cni/bundled", "cni/bundled/bridge cni/bundled/hostlocal cni/bundled/loopback cni/bundled/portmap"},
	{"cni/bundled/bridge", "cni/bundled/ipam"},
	{"cni/bundled/ipam", "cni/bundled/hostlocal cni/bundled/link"},
	{"cni/bundled/...", ""},
	{"cni/natchain", ""},
	{"cni/conflist", "pkg/atomicfile pkg/reconcile"},
	{"cni/reservation", ""},

	{"backend/all", "backend backend/alloc backend/fastpath backend/hostgw backend/udp backend/udp/bpf backend/vxlan backend/wireguard pkg/hostroute pkg/inet pkg/masq pkg/netdev pkg/nftbatch pkg/pinned pkg/rtnl"},
	{"backend/udp", "backend backend/fastpath backend/udp/bpf subnet pkg/..."},
	{"backend/fastpath", "backend pkg/checksum pkg/hostrules pkg/inet pkg/netdev pkg/nftbatch pkg/pinned pkg/ratelog pkg/reconcile pkg/rtnl pkg/tchook"},
	{"backend/udp/bpf", "pkg/inet pkg/netdev pkg/pinned pkg/ratelog pkg/rtnl pkg/tchook"},
	{"backend/alloc", "backend subnet pkg/inet"},
	{"backend/hostgw", "backend backend/fastpath subnet pkg/..."},
	{"backend/vxlan", "backend subnet pkg/..."},
	{"backend/wireguard", "backend subnet pkg/..."},
	{"backend", "subnet pkg/inet pkg/ratelog pkg/uplink"},

	{"subnet/store", "subnet subnet/etcd subnet/etcdv2 subnet/etcdv3 subnet/kube pkg/backoff"},
	{"subnet/etcdv2", "subnet subnet/etcd"},
	{"subnet/etcdv3", "subnet subnet/etcd pkg/backoff pkg/inet"},
	{"subnet/etcd", "subnet pkg/backoff pkg/clock pkg/inet"},
	{"subnet/kube", "subnet pkg/backoff pkg/clock pkg/inet"},
	{"subnet/embed", "pkg/backoff"},
	{"subnet/subnettest/...", "subnet subnet/etcd"},
	{"subnet", "pkg/backoff pkg/clock pkg/inet pkg/printable pkg/ratelog"},

	{"pkg/atomicfile", ""},
	{"pkg/backoff", ""},
	{"pkg/checksum", ""},
	{"pkg/clock", ""},
	{"pkg/control", "pkg/httpd"},
	{"pkg/envflag", ""},
	{"pkg/hostroute", "pkg/inet pkg/netdev pkg/reconcile pkg/rtnl"},
	{"pkg/hostrules", "pkg/inet pkg/nftbatch pkg/reconcile pkg/rtnl"},
	{"pkg/httpd", ""},
	{"pkg/inet", ""},
	{"pkg/logpipe", "pkg/printable"},
	{"pkg/masq", "pkg/hostrules pkg/nftbatch pkg/ratelog pkg/reconcile pkg/xtables"},
	{"pkg/netdev", ""},
	{"pkg/netnstest", ""},
	{"pkg/nftbatch", "pkg/netdev"},
	{"pkg/netnstest/packetfault", "pkg/netnstest"},
	{"pkg/nodeid", "pkg/atomicfile"},
	{"pkg/offload", "pkg/checksum pkg/tun/virtio"},
	{"pkg/offloadprobe", "pkg/checksum pkg/clock pkg/inet pkg/udpsock"},
	{"pkg/offloadrepair", "pkg/atomicfile pkg/clock pkg/inet pkg/offloadprobe pkg/ratelog"},
	{"pkg/ownfile", ""},
	{"pkg/pinned", "pkg/ownfile"},
	{"pkg/printable", ""},
	{"pkg/probe", "pkg/clock pkg/inet"},
	{"pkg/ratelog", ""},
	{"pkg/reconcile", "pkg/backoff pkg/clock pkg/ratelog"},
	{"pkg/rtnl", "pkg/inet pkg/netdev pkg/ratelog pkg/reconcile"},
	{"pkg/status", "pkg/httpd"},
	{"pkg/subnetfile", "pkg/atomicfile pkg/backoff"},
	{"pkg/tchook", "pkg/netdev pkg/pinned"},
	{"pkg/tun", "pkg/netdev pkg/tun/virtio"},
	{"pkg/tun/virtio", ""},
	{"pkg/udpsock", "pkg/inet"},
	{"pkg/uplink", "pkg/inet pkg/netdev pkg/ratelog pkg/reconcile pkg/rtnl"},
	{"pkg/xtables", ""},

	{"contrib/image", "contrib/image/oci"},
	{"contrib/image/oci", ""},
	{"contrib/kubernetes", "contrib/kubernetes/render"},
	{"contrib/kubernetes/render", ""},
	{"docs", ""},
	{"Godeps/generate", ""},
	{"Godeps/weigh", ""},
	{"e2e/commandline", "pkg/envflag"},
	{"e2e/bench/rig", "e2e/... pkg/inet pkg/masq pkg/netnstest pkg/subnetfile subnet"},
	{"e2e/kube/...", "contrib/image/oci contrib/kubernetes/render e2e/kube/... pkg/netnstest pkg/subnetfile subnet subnet/kube"},
	{"e2e/...", "e2e/... pkg/inet pkg/netnstest pkg/subnetfile subnet subnet/etcd subnet/etcdv3 subnet/kube subnet/subnettest/faultproxy"},
}

// testLayers lists the packages that tests may import as well.
var testLayers = []struct{ from, to string }{
	{"contrib/kubernetes", "daemon"},
	{"cli", "subnet/etcdv3"},
	{"subnet/embed", "subnet subnet/etcd subnet/etcdv3"},
	{"subnet/etcdv3", "subnet/embed"},
	{"backend/...", "pkg/uplink"},
	{"pkg/offload", "pkg/tun"},
	{"pkg/tun", "pkg/checksum"},
	{"e2e", "pkg/checksum pkg/control pkg/inet pkg/netdev"},
}

// forTests are the packages that any test may import and the program may not.
const forTests = "pkg/netnstest/... subnet/subnettest/..."

// imports checks the imports of a file by the table of layers.
func imports(f *file) []string {
	allowed, known := "", false
	for _, l := range layers {
		if matches(l.from, f.dir()) {
			allowed, known = l.to, true
			break
		}
	}
	if !known {
		return []string{f.name + ": the package is not in the table of layers"}
	}
	if f.test() {
		allowed += " " + forTests
		for _, l := range testLayers {
			if matches(l.from, f.dir()) {
				allowed += " " + l.to
			}
		}
	}
	var bad []string
	for _, to := range f.imports() {
		own := to == f.dir() && f.test() // the external test of a package
		ok := slices.ContainsFunc(strings.Fields(allowed), func(pattern string) bool {
			onlyTests := pattern == "pkg/..." && within("pkg/netnstest", to)
			return matches(pattern, to) && !onlyTests
		})
		if !own && !ok {
			bad = append(bad, fmt.Sprintf("%s: %s may not import %s", f.name, f.dir(), to))
		}
	}
	return bad
}

// matches reports whether the package is the pattern, or below "pattern/...".
func matches(pattern, dir string) bool {
	above, all := strings.CutSuffix(pattern, "/...")
	return dir == above || all && within(above, dir)
}

func within(dir, name string) bool { return name == dir || strings.HasPrefix(name, dir+"/") }

// Each row and each permission names a package that exists.
func TestLayersAreCurrent(t *testing.T) {
	dirs := make(map[string]bool)
	for _, f := range tree(t) {
		dirs[f.dir()] = true
	}
	exists := func(pattern string) bool {
		for dir := range dirs {
			if matches(pattern, dir) {
				return true
			}
		}
		return false
	}
	for _, l := range slices.Concat(layers, testLayers) {
		for _, pattern := range append(strings.Fields(l.to), l.from) {
			if !exists(pattern) {
				t.Errorf("the row of %s names %s, which is no package", l.from, pattern)
			}
		}
	}
}

// topFolders are the folders at the root. Names that begin with a dot, and the
// output of the build script, are not part of the layout.
var topFolders = []string{"Godeps", "backend", "cli", "cni", "contrib", "daemon", "docs", "e2e", "findings", "pkg", "subnet"}

func TestLayout(t *testing.T) {
	entries := rootEntries(t)
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() && !strings.HasPrefix(name, ".") && name != "bin" && name != "dist" && !slices.Contains(topFolders, name) {
			t.Errorf("the root has a folder %s, which the layout lacks", name)
		}
	}
	for _, want := range topFolders {
		if !slices.ContainsFunc(entries, func(e dirEntry) bool { return e.IsDir() && e.Name() == want }) {
			t.Errorf("the layout has a folder %s, which the root lacks", want)
		}
	}
}

// rootFiles allows two Go files at the root.
func rootFiles(f *file) []string {
	if f.dir() == "." && path.Base(f.name) != "main.go" && path.Base(f.name) != "version.go" {
		return []string{f.name + ": the root has main.go and version.go alone"}
	}
	return nil
}
