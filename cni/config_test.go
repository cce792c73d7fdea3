package cni

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// Files of subnet.env.
const (
	envIPv4 = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"
	envIPv6 = "FLANNEL_IPV6_NETWORK=fc00::/48\nFLANNEL_IPV6_SUBNET=fc00::1/64\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=true\n"
	envDual = "FLANNEL_NETWORK=10.1.0.0/16\nFLANNEL_SUBNET=10.1.17.1/24\n" + envIPv6
	envMany = "FLANNEL_NETWORK=10.1.0.0/16,192.168.0.0/16,10.1.9.9/16\nFLANNEL_SUBNET=10.1.17.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n"
)

func writeFile(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// The delegate's configuration has the bytes that flannel-io/cni-plugin 1.9.1
// writes.
func TestDelegate(t *testing.T) {
	for name, c := range map[string]struct{ env, conf, want string }{
		"ipv4": {envIPv4, `{"name": "cbr0", "type": "flannel"}`,
			`{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}`},
		"ipv6": {envIPv6, `{"name": "cbr0", "type": "flannel"}`,
			`{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"fc00::/64"}]],"routes":[{"dst":"fc00::/48"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}`},
		"both": {envDual, `{"name": "cbr0", "type": "flannel"}`,
			`{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}],[{"subnet":"fc00::/64"}]],"routes":[{"dst":"10.1.0.0/16"},{"dst":"fc00::/48"}],"type":"host-local"},"isGateway":true,"mtu":1472,"name":"cbr0","type":"bridge"}`},
		"networks, the engine masquerades": {envMany, `{"name": "cbr0", "type": "flannel"}`,
			`{"ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"},{"dst":"192.168.0.0/16"}],"type":"host-local"},"isGateway":true,"mtu":1450,"name":"cbr0","type":"bridge"}`},
		"kube-flannel": {envIPv4, `{"cniVersion": "0.3.1", "name": "cbr0", "type": "flannel", "delegate": {"hairpinMode": true, "isDefaultGateway": true},
			"runtimeConfig": {"portMappings": []}, "prevResult": {"ips": []}, "args": {"a": 1}}`,
			`{"cniVersion":"0.3.1","hairpinMode":true,"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"isDefaultGateway":true,"isGateway":true,"mtu":1472,"name":"cbr0","runtimeConfig":{"portMappings":[]},"type":"bridge"}`},
		"given keys stay": {envIPv4, `{"name": "n", "type": "flannel", "delegate": {"type": "bridge", "mtu": 1400, "ipMasq": true, "isGateway": false, "bridge": "br<0>", "big": 123456789012345678901},
			"ipam": {"type": "my-ipam", "unknown": "kept", "ranges": [], "routes": [{"dst": "10.96.0.0/12"}, {"dst": "192.168.244.0/24", "gw": "10.1.17.20", "unknown": 1}]}}`,
			`{"big":123456789012345680000,"bridge":"br\u003c0\u003e","ipMasq":true,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.96.0.0/12"},{"dst":"192.168.244.0/24","gw":"10.1.17.20"},{"dst":"10.1.0.0/16"}],"type":"my-ipam","unknown":"kept"},"isGateway":false,"mtu":1400,"name":"n","type":"bridge"}`},
		"another plugin has no isGateway": {envIPv4, `{"name": "n", "type": "flannel", "delegate": {"type": "ipvlan", "master": "eth0"}}`,
			`{"ipMasq":false,"ipam":{"ranges":[[{"subnet":"10.1.17.0/24"}]],"routes":[{"dst":"10.1.0.0/16"}],"type":"host-local"},"master":"eth0","mtu":1472,"name":"n","type":"ipvlan"}`},
	} {
		t.Run(name, func(t *testing.T) {
			env, err := parseSubnetEnv(writeFile(t, c.env))
			if err != nil {
				t.Fatal(err)
			}
			conf, err := parseConfig([]byte(c.conf))
			if err != nil {
				t.Fatal(err)
			}
			d, err := conf.delegate(env)
			if err != nil {
				t.Fatal(err)
			}
			got, err := d.json()
			if diff := cmp.Diff(c.want, string(got)); diff != "" || err != nil {
				t.Errorf("%v\n%s", err, diff)
			}
		})
	}
}

func TestConfigErrors(t *testing.T) {
	for _, c := range []struct {
		conf string
		code uint
		want string
	}{
		{`{"name": 1}`, types.ErrDecodingFailure, "parse the CNI configuration"},
		{`{"name": "n", "delegate": {"name": "x"}}`, types.ErrInvalidNetworkConfig, `"name", which flannel sets`},
		{`{"name": "n", "delegate": {"ipam": {}}}`, types.ErrInvalidNetworkConfig, `"ipam", which flannel sets`},
		{`{"name": "n", "delegate": {"type": 5}}`, types.ErrInvalidNetworkConfig, "the delegate's type is 5"},
		{`{"name": "n", "delegate": {"type": "flannel"}}`, types.ErrInvalidNetworkConfig, "the delegate's type is flannel"},
		{`{"name": "n", "ipam": {"routes": [{"dst": "x"}]}}`, types.ErrInvalidNetworkConfig, "routes are invalid"},
	} {
		conf, err := parseConfig([]byte(c.conf))
		if err == nil {
			_, err = conf.delegate(&subnetEnv{})
		}
		wantError(t, err, c.code, c.want)
	}
}

// wantError checks the code and the text of an error object.
func wantError(t *testing.T, err error, code uint, text string) {
	t.Helper()
	var e *types.Error
	if !errors.As(err, &e) || e.Code != code || !strings.Contains(fmt.Sprint(e), text) {
		t.Errorf("the error is %#v, want code %d and %q", err, code, text)
	}
}

func TestSubnetEnvErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "lacks FLANNEL_NETWORK or FLANNEL_IPV6_NETWORK, FLANNEL_SUBNET or FLANNEL_IPV6_SUBNET, FLANNEL_MTU, FLANNEL_IPMASQ",
		"FLANNEL_SUBNET=10.1.17.1/24,fc::": "FLANNEL_SUBNET: invalid CIDR",
		strings.ReplaceAll(envIPv4, "1472", "-1"):           "FLANNEL_MTU",
		strings.ReplaceAll(envIPv4, "10.1.0.0/16", "10.1/"): "FLANNEL_NETWORK: invalid CIDR",
	} {
		_, err := parseSubnetEnv(writeFile(t, text))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "subnet.env")
	_, err := readSubnetEnv(t.Context(), missing, types.ErrTryAgainLater)
	wantError(t, err, types.ErrTryAgainLater, missing)
}

// Only the word true means that flannel masquerades.
func TestSubnetEnvIPMasq(t *testing.T) {
	for value, want := range map[string]bool{"true": true, "false": false, "1": false, "TRUE": false, "": false} {
		env, err := parseSubnetEnv(writeFile(t, strings.Replace(envIPv4, "IPMASQ=true", "IPMASQ="+value, 1)))
		if err != nil || env.ipMasq != want {
			t.Errorf("%q gives %v, %v", value, env, err)
		}
	}
}

func TestExplain(t *testing.T) {
	for _, c := range []struct {
		err    error
		code   uint
		remedy string
	}{
		{types.NewError(999, `failed to set bridge addr: "cni0" already has an IP address different from 10.1.2.1/24`, ""), 999, "ip link delete"},
		{types.NewError(7, "no IP addresses available in range set: 10.1.2.1-10.1.2.254", "more"), 7, "more; the node's subnet is full"},
		{types.NewError(1, "incompatible CNI versions", `config is "1.1.0"`), 1, "install-cni"},
		{fmt.Errorf("failed to create bridge %q: could not add %[1]q: %v", "cni0", unix.EOPNOTSUPP), 999, "modprobe bridge"},
		{fmt.Errorf("failed to make veth pair: %v", unix.EOPNOTSUPP), 999, "modprobe veth"},
		{errors.New("iptables: Failed to initialize nft: Protocol not supported"), 999, "modprobe nf_tables"},
		{errors.New("iptables v1.8.7 (legacy): can't initialize iptables table `nat': Table does not exist (do you need to insmod?)"), 999, "modprobe -a iptable_nat"},
		{&types.Error{Msg: "netplugin failed with no error message: signal: killed"}, 999, ""},
		{errors.New("context canceled"), 999, ""},
	} {
		err := explain(c.err, "ADD by the plugin bridge")
		wantError(t, err, c.code, c.remedy)
		wantError(t, err, c.code, "ADD by the plugin bridge: ")
	}
}
