package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// maxExposure is in tenths of the result of "systemd-analyze security", from 0
// to 100 (unprotected).
const maxExposure = 25

const unitDir = "/usr/lib/systemd/system/"

// The Debian package is installed on a host with a real systemd. The unit is
// sound, and all data paths work with the rights that it leaves. systemd
// restarts a program that hangs. Docker waits for its subnet. After a purge
// nothing is left.
func TestPackageUnderSystemd(t *testing.T) {
	c := newCluster(t, "3")
	if out, err := exec.CommandContext(t.Context(), "../build", "package").CombinedOutput(); err != nil {
		t.Fatalf("build package: %v\n%s", err, out)
	}
	debs, err := filepath.Glob("../dist/flannel_*_" + runtime.GOARCH + ".deb")
	if err != nil || len(debs) == 0 {
		t.Fatalf("no package for %s: %v", runtime.GOARCH, err)
	}
	checkRPM(t)
	node, peer := c.node("a"), c.node("b")
	peer.join()
	// As systemd's own /usr/lib/sysctl.d/50-default.conf and ours have it.
	node.Sysctl("net.ipv4.ping_group_range", "0 2147483647")
	s := bootSystemd(t, node.Host)
	before := s.files()
	s.copyIn(debs[len(debs)-1], "/flannel.deb")
	s.run("dpkg", "--install", "/flannel.deb")

	if out := s.run("sh", "-c", "zcat /usr/share/man/man8/flannel.8.gz | groff -man -Tascii -P-cbou"); !strings.Contains(out, "flannel docker-opts") {
		t.Errorf("the manual page:\n%s", out)
	}
	for _, file := range []string{"/usr/share/bash-completion/completions/flannel", "/usr/share/zsh/vendor-completions/_flannel"} {
		if out := s.run("cat", file); !strings.Contains(out, "docker-opts") {
			t.Errorf("%s:\n%s", file, out)
		}
	}

	if out := s.run("systemd-analyze", "verify", unitDir+"flannel.service"); out != "" {
		t.Errorf("systemd-analyze verify: %s", out)
	}
	s.run("systemd-analyze", "security", "--no-pager", "--offline=yes", fmt.Sprintf("--threshold=%d", maxExposure), unitDir+"flannel.service")

	for _, path := range dataPaths {
		s.write("/etc/default/flannel", fmt.Sprintf("FLANNELD_ETCD_ENDPOINTS=%s\nFLANNELD_IP_MASQ=true\nFLANNELD_UDP_DATAPATH=%s\n", c.etcd.URL(), path))
		s.run("systemctl", "restart", "flannel") // returns at READY=1
		if got := node.status().Backend.DataPath; got != path {
			t.Errorf("with the unit's capabilities the data path is %s, want %s", got, path)
		}
		eventually(t, "with the unit's capabilities the peer is probed", func() error {
			if text := node.statusText(); !strings.Contains(text, `"rtt_seconds": 0.`) {
				return errors.New(text)
			}
			return nil
		})
	}
	subnet := node.status().Lease.Subnet
	eventually(t, "systemctl status tells the subnet", func() error {
		if text := s.property("flannel", "StatusText"); !strings.Contains(text, subnet.String()) {
			return fmt.Errorf("it tells %q", text)
		}
		return nil
	})

	s.write("/run/systemd/system/flannel.service.d/soon.conf", "[Service]\nWatchdogSec=1\nRestartSec=0\n")
	s.run("systemctl", "daemon-reload")
	s.run("systemctl", "restart", "flannel")
	s.run("systemctl", "kill", "--signal=STOP", "flannel")
	eventually(t, "systemd starts a program again that hangs", func() error {
		if s.property("flannel", "NRestarts") == "0" || s.property("flannel", "ActiveState") != "active" {
			return errors.New(s.property("flannel", "ActiveState"))
		}
		return nil
	})
	if after := node.status().Lease.Subnet; after != subnet {
		t.Errorf("the subnet is %v, was %v", after, subnet)
	}

	// Docker starts after flannel and has its subnet.
	s.run("systemctl", "stop", "flannel")
	for _, command := range cloudConfig(t) {
		s.run(command[0], command[1:]...)
	}
	s.run("systemctl", "start", "docker")
	gateway := subnet.Addr().Next().String()
	if out := s.run("ip", "-4", "addr", "show", "docker0"); !strings.Contains(out, gateway+"/24") {
		t.Errorf("docker0 has not the address %s:\n%s", gateway, out)
	}
	if out := s.run("iptables", "-S", "DOCKER-USER"); strings.Count(out, network.String()) != 2 {
		t.Errorf("Docker does not accept the overlay:\n%s", out)
	}
	s.run("systemctl", "stop", "docker.socket", "docker", "containerd")
	s.run("rm", "-r", "/etc/systemd/system/docker.service.d", "/etc/docker", "/var/lib/docker", "/var/lib/containerd")

	s.run("dpkg", "--purge", "flannel")
	if after := s.files(); after != before {
		t.Errorf("files after the package is gone:\n%s\nbefore:\n%s", after, before)
	}
	if node.HasLink("flannel0") {
		t.Error("the device is still there")
	}
	if out := s.run("nft", "list", "tables"); strings.Contains(out, "flannel") {
		t.Errorf("rules are still there:\n%s", out)
	}
}

// checkRPM looks into the package for other distributions.
func checkRPM(t *testing.T) {
	t.Helper()
	rpms, err := filepath.Glob("../dist/flannel-*.rpm")
	if err != nil || len(rpms) == 0 {
		t.Fatalf("no .rpm: %v", err)
	}
	for _, rpm := range rpms {
		out, err := exec.CommandContext(t.Context(), "rpm", "-q", "--nosignature", "-lvp", rpm).CombinedOutput()
		if err != nil {
			t.Fatalf("rpm: %v\n%s", err, out)
		}
		for _, want := range []string{"/usr/bin/flannel", unitDir + "flannel.service", "/etc/default/flannel", "/usr/lib/sysctl.d/50-flannel.conf",
			"/usr/share/man/man8/flannel.8.gz", "/usr/share/bash-completion/completions/flannel", "/usr/share/zsh/site-functions/_flannel"} {
			if !strings.Contains(string(out), " "+want+"\n") {
				t.Errorf("%s has no %s:\n%s", rpm, want, out)
			}
		}
	}
}

// cloudConfig returns the commands of contrib/cloud-config.yml between the
// installation of the package and the start of the services.
func cloudConfig(t *testing.T) [][]string {
	t.Helper()
	text, err := os.ReadFile("../contrib/cloud-config.yml")
	if err != nil {
		t.Fatal(err)
	}
	var commands [][]string
	for line := range strings.Lines(string(text)) {
		list, ok := strings.CutPrefix(strings.TrimSpace(line), "- [")
		if !ok {
			continue
		}
		words := strings.Split(strings.TrimSuffix(list, "]"), ", ")
		if words[0] == "cp" || words[1] == "daemon-reload" {
			commands = append(commands, words)
		}
	}
	if len(commands) != 2 {
		t.Fatalf("commands %q", commands)
	}
	return commands
}
