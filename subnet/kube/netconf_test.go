package kube

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

func TestConfigFitsPodCIDR(t *testing.T) {
	for name, test := range map[string]struct {
		file  string
		own   []string
		other []string
		want  string // the Network, SubnetLen and Backend.Type
		err   []string
	}{
		"as written":              {file: netConf1, own: []string{"10.5.3.0/24"}, want: "10.5.0.0/16 24 vxlan"},
		"other mask":              {file: netConf1, own: []string{"10.5.3.0/26"}, want: "10.5.0.0/16 26 vxlan"},
		"range is left out":       {file: `{"network":"10.5.0.0/16","subnetlen":20,"SubnetMin":"10.5.16.0"}`, own: []string{"10.5.3.0/24"}, want: "10.5.0.0/16 24 udp"},
		"no network":              {file: `{"Backend":{"Type":"vxlan"}}`, own: []string{"10.244.3.0/24"}, want: "10.244.0.0/16 24 vxlan"},
		"unset network":           {file: `{"Network":"0.0.0.0/0"}`, own: []string{"10.244.3.0/24"}, want: "10.244.0.0/16 24 udp"},
		"large network":           {file: `{}`, own: []string{"10.1.3.0/24"}, other: []string{"10.3.0.0/24"}, want: "10.0.0.0/14 24 udp"},
		"second family":           {file: netConf1, own: []string{"fd00:5::/64", "10.5.3.0/24"}, want: "10.5.0.0/16 24 vxlan"},
		"dual, no network":        {file: `{}`, own: []string{"10.5.3.0/24", "fd00:5:0:3::/64"}, want: "10.5.0.0/16 24 fd00:5::/48 64 udp"},
		"dual, one network":       {file: `{"IPv6Network":"fd00:5::/48"}`, own: []string{"10.5.3.0/24", "fd00:5:0:3::/64"}, want: "fd00:5::/48 64 udp"},
		"dual, by switches":       {file: `{"EnableIPv4":true,"EnableIPv6":true}`, own: []string{"10.5.3.0/24", "fd00:5:0:3::/80"}, want: "10.5.0.0/16 24 fd00:5::/48 80 udp"},
		"unset IPv6 network":      {file: `{"Network":"10.5.0.0/16","IPv6Network":"::/0"}`, own: []string{"10.5.3.0/24", "fd00:5:0:3::/64"}, want: "10.5.0.0/16 24 udp"},
		"outside of IPv6 network": {file: `{"IPv6Network":"fd00:6::/48"}`, own: []string{"fd00:5:0:3::/64"}, err: []string{"fd00:5:0:3::/64", "IPv6Network is fd00:6::/48"}},
		"outside": {file: netConf1, own: []string{"10.244.3.0/24"},
			err: []string{"node self has podCIDR 10.244.3.0/24", "Network is 10.5.0.0/16", "net-conf.json"}},
		"larger than the network": {file: netConf1, own: []string{"10.4.0.0/15"}, err: []string{"10.4.0.0/15", "10.5.0.0/16"}},
		"no podCIDR":              {file: netConf1, err: []string{"node self has no podCIDR"}},
		"two of a family":         {file: netConf1, own: []string{"10.5.3.0/24", "10.5.4.0/24"}, err: []string{"two podCIDRs of one family"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := kubeapi.Start(t)
			s.PutNode(self, nil, test.own...)
			s.PutNode("other", nil, test.other...)
			k, _ := open(t, s)
			configure(t, k, test.file)
			text, err := k.Config(t.Context())
			if test.err != nil {
				for _, want := range test.err {
					if err == nil || !strings.Contains(err.Error(), want) {
						t.Errorf("Config = %s, %v; want an error with %q", text, err, want)
					}
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			c, err := subnet.ParseConfig(text)
			if err != nil {
				t.Fatalf("Config = %s: %v", text, err)
			}
			var have []string
			for _, f := range c.Families() {
				have = append(have, c.RangeOf(f).Network.String(), itoa(c.RangeOf(f).SubnetLen))
			}
			if have := strings.Join(append(have, c.BackendType), " "); have != test.want {
				t.Errorf("Config = %s: %s, want %s", text, have, test.want)
			}
		})
	}
}

// A Node that comes late, and its podCIDR, are seen without a watch.
func TestConfigOfLateNode(t *testing.T) {
	s := kubeapi.Start(t)
	k, _ := open(t, s)
	configure(t, k, `{}`)
	if _, err := k.Config(t.Context()); !errors.Is(err, errNoNode) || !subnet.IsAnswer(err) {
		t.Errorf("Config without the Node: %v", err)
	}
	s.PutNode(self, nil)
	if _, err := k.Config(t.Context()); !errors.Is(err, errUnassigned) || !subnet.IsAnswer(err) {
		t.Errorf("Config without a podCIDR: %v", err)
	}
	for _, podCIDR := range []string{"10.5.3.0/24", "10.6.3.0/24"} {
		s.DeleteNode(self)
		s.PutNode(self, nil, podCIDR)
		if text, err := k.Config(t.Context()); err != nil || !strings.Contains(string(text), podCIDR[:5]) {
			t.Errorf("Config with podCIDR %s = %s, %v", podCIDR, text, err)
		}
	}
}

// A ConfigMap is a folder of symbolic links. An update replaces one of them, which is
// announced.
func TestConfigFollowsConfigMap(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, _ := open(t, s)
	dir := filepath.Dir(k.config.NetConfig)
	version := func(name, text string) {
		t.Helper()
		err := errors.Join(os.Mkdir(filepath.Join(dir, name), 0o755),
			os.WriteFile(filepath.Join(dir, name, "net-conf.json"), []byte(text), 0o644),
			os.Symlink(name, filepath.Join(dir, "..tmp")),
			os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("..data/net-conf.json", k.config.NetConfig); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	announced, ended := make(chan struct{}, 10), make(chan error, 1)
	go func() { ended <- k.NotifyConfig(ctx, func() { announced <- struct{}{} }) }()
	defer func() {
		cancel()
		<-ended
	}()
	for n, text := range []string{`{"Network":"10.5.0.0/16"}`, `{"Network":"10.0.0.0/8"}`} {
		version("..v"+itoa(n), text)
		<-announced
		have, err := k.Config(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(text, string(have)); diff != "" {
			t.Errorf("Config (-want +have):\n%s", diff)
		}
	}
}

// A Store without a Node, as a command has it, reads the file as it is.
func TestConfigOfCommand(t *testing.T) {
	s := kubeapi.Start(t)
	k, requests := open(t, s)
	k.config.Self, k.name = Self{}, ""
	configure(t, k, netConf1)
	if text, err := k.Config(t.Context()); err != nil || string(text) != netConf1 || requests.Load() != 0 {
		t.Errorf("Config = %s, %v, with %d requests", text, err, requests.Load())
	}
}
