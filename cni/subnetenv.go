package cni

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/coreos/flannel/pkg/subnetfile"
)

// subnetEnv is what the daemon gives this host. Of each list the IPv4 part is
// first.
type subnetEnv struct {
	networks, subnets []net.IPNet
	mtu               uint64
	ipMasq            bool // flannel masquerades
}

// readSubnetEnv reads the daemon's file. The error has the given code, the
// daemon's reason, and the remedy.
func readSubnetEnv(ctx context.Context, path string, code uint) (*subnetEnv, error) {
	env, err := parseSubnetEnv(path)
	if err == nil {
		return env, nil
	}
	remedy := "the daemon writes " + path + " when it is ready; see its log, or run \"flannel status\" on the node"
	if reason := daemonReason(ctx); reason != "" {
		remedy = "the daemon is not ready: " + reason
	}
	return nil, types.NewError(code, fmt.Sprintf("flannel has no subnet for this node yet: %v", err), remedy)
}

func parseSubnetEnv(path string) (*subnetEnv, error) {
	vars, err := subnetfile.Variables(path)
	if err != nil {
		return nil, err
	}
	var env subnetEnv
	var missing []string
	for _, list := range []struct {
		to   *[]net.IPNet
		keys [2]string
		many bool
	}{
		{&env.networks, [2]string{"FLANNEL_NETWORK", "FLANNEL_IPV6_NETWORK"}, true},
		{&env.subnets, [2]string{"FLANNEL_SUBNET", "FLANNEL_IPV6_SUBNET"}, false},
	} {
		for _, key := range list.keys {
			found, err := parseCIDRs(vars[key], list.many)
			if err != nil {
				return nil, fmt.Errorf("read %s: %s: %w", path, key, err)
			}
			*list.to = append(*list.to, found...)
		}
		if len(*list.to) == 0 {
			missing = append(missing, list.keys[0]+" or "+list.keys[1])
		}
	}
	for _, key := range []string{"FLANNEL_MTU", "FLANNEL_IPMASQ"} {
		if _, there := vars[key]; !there {
			missing = append(missing, key)
		}
	}
	if missing != nil {
		return nil, fmt.Errorf("%s lacks %s", path, strings.Join(missing, ", "))
	}
	if env.mtu, err = strconv.ParseUint(vars["FLANNEL_MTU"], 10, 32); err != nil {
		return nil, fmt.Errorf("read %s: FLANNEL_MTU: %w", path, err)
	}
	env.ipMasq = vars["FLANNEL_IPMASQ"] == "true"
	return &env, nil
}

// parseCIDRs parses a list that commas separate. It drops duplicates and the host
// part of each address.
func parseCIDRs(text string, many bool) ([]net.IPNet, error) {
	if text == "" {
		return nil, nil
	}
	texts := []string{text}
	if many {
		texts = strings.Split(text, ",")
	}
	var all []net.IPNet
	seen := make(map[string]bool)
	for _, t := range texts {
		_, n, err := net.ParseCIDR(strings.TrimSpace(t))
		if err != nil {
			return nil, err
		}
		if !seen[n.String()] {
			seen[n.String()] = true
			all = append(all, *n)
		}
	}
	return all, nil
}

// The daemon answers here by default, on this host.
const (
	readyURL     = "http://127.0.0.1:8286/readyz"
	readyTimeout = 500 * time.Millisecond
	maxReason    = 1 << 10
)

// daemonReason returns why the daemon is not ready, and "" if that is unknown.
func daemonReason(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, readyURL, nil)
	if err != nil {
		return ""
	}
	client := http.Client{Transport: &http.Transport{Proxy: nil, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		return "" // no daemon, or it serves elsewhere
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxReason))
	if err != nil || response.StatusCode != http.StatusServiceUnavailable {
		return ""
	}
	return strings.ReplaceAll(strings.TrimSpace(string(text)), "\n", "; ")
}
