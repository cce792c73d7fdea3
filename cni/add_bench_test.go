package cni

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/coreos/flannel/cni/bundled/link"
	"github.com/coreos/flannel/pkg/netnstest"
)

// BenchmarkAdd measures an ADD: by the plain plugin bridge; by flannel in a folder with the
// plugins that it brings along; and in one with those of a distribution.
func BenchmarkAdd(b *testing.B) {
	netnstest.Require(b)
	dir := b.TempDir()
	plain, bundled, mixed := filepath.Join(dir, "plain"), filepath.Join(dir, "bundled"), filepath.Join(dir, "mixed")
	const plugins = "github.com/containernetworking/plugins/plugins/"
	for path, pkg := range map[string]string{
		plain + "/bridge": plugins + "main/bridge", plain + "/host-local": plugins + "ipam/host-local",
		mixed + "/bridge": plugins + "main/bridge", mixed + "/host-local": plugins + "ipam/host-local", mixed + "/flannel": "./flannel",
		bundled + "/flannel": "./flannel", bundled + "/" + link.Program: "./flannel",
	} {
		build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", path, pkg)
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			b.Fatalf("build %s: %v\n%s", pkg, err, out)
		}
	}
	for _, name := range []string{"bridge", "host-local"} {
		if err := link.Make(filepath.Join(bundled, name)); err != nil {
			b.Fatal(err)
		}
	}
	env := filepath.Join(dir, "subnet.env")
	if err := os.WriteFile(env, []byte(envIPv4), 0o600); err != nil {
		b.Fatal(err)
	}
	lab := netnstest.New(b)
	host, pod := lab.Host("host"), lab.Namespace("pod")
	const bridgeConf = `{"cniVersion":"1.0.0","name":"n","type":"bridge","isDefaultGateway":true,"isGateway":true,"mtu":1472,` +
		`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}]}}`
	const flannelConf = `{"cniVersion":"1.0.0","name":"n","type":"flannel","subnetFile":%q,"dataDir":%q,"delegate":{"isDefaultGateway":true},"ipam":{"dataDir":%q}}`
	conf := fmt.Sprintf(flannelConf, env, filepath.Join(dir, "flannel"), filepath.Join(dir, "networks"))
	for _, c := range []struct{ name, bin, plugin, conf string }{
		{"bridge", plain, "bridge", fmt.Sprintf(bridgeConf, filepath.Join(dir, "networks"))},
		{"flannel with its own plugins", bundled, "flannel", conf},
		{"flannel beside others", mixed, "flannel", conf},
	} {
		run := func(command string) time.Duration {
			cmd := host.Command(b.Context(), filepath.Join(c.bin, c.plugin))
			cmd.Env = append(os.Environ(), "CNI_COMMAND="+command, "CNI_CONTAINERID=pod", "CNI_IFNAME=eth0",
				"CNI_NETNS=/run/netns/"+pod.Netns(), "CNI_PATH="+c.bin)
			cmd.Stdin = bytes.NewReader([]byte(c.conf))
			if out, err := cmd.Output(); err != nil {
				b.Fatalf("%s by %s: %v\n%s", command, c.plugin, err, out)
			}
			return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		}
		b.Run(c.name, func(b *testing.B) {
			var used time.Duration // by the plugins, also those that others run
			for b.Loop() {
				used += run("ADD")
				b.StopTimer()
				run("DEL")
				b.StartTimer()
			}
			b.ReportMetric(float64(used.Microseconds())/float64(b.N), "cpu-us/op")
		})
	}
}
