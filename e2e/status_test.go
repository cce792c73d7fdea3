package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
)

// statusURL is where a daemon serves, inside its host.
const statusURL = "http://127.0.0.1:8286"

// These are its pages.
const (
	statusPage  = "/api/v1/status"
	metricsPage = "/metrics"
)

// get reads a page of the node's daemon.
func (n *node) get(ctx context.Context, page string) (code int, text string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, statusURL+page, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := n.HTTP().Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// page reads a page that must exist.
func (n *node) page(name string) string {
	n.t.Helper()
	code, text, err := n.get(n.t.Context(), name)
	if err != nil || code != http.StatusOK {
		n.t.Fatalf("host %s: %s: code %d, %v\n%s", n.Name(), name, code, err, text)
	}
	return text
}

// statusText returns the status report, metrics the text for Prometheus.
func (n *node) statusText() string { n.t.Helper(); return n.page(statusPage) }
func (n *node) metrics() string    { n.t.Helper(); return n.page(metricsPage) }

// readiness waits until /readyz answers with code and a body that contains
// text.
func (n *node) readiness(code int, text string) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("/readyz answers %d %q", code, text), func() error {
		got, body, err := n.get(n.t.Context(), "/readyz")
		if err == nil && (got != code || !strings.Contains(body, text)) {
			err = fmt.Errorf("%d: %s", got, body)
		}
		return err
	})
}

// status has the fields of the status report that the tests read.
type status struct {
	FamilyProblems []string `json:"family_problems"`
	Ready          bool     `json:"ready"`
	Node           struct {
		PublicIP netip.Addr `json:"public_ip"`
		Iface    string     `json:"iface"`
	} `json:"node"`
	Lease struct {
		Subnet     netip.Prefix `json:"subnet"`
		IPv6Subnet netip.Prefix `json:"ipv6_subnet"`
	} `json:"lease"`
	Backend struct {
		DataPath       string            `json:"datapath"`
		DataPathReason string            `json:"datapath_reason"`
		Drops          map[string]uint64 `json:"drops"`
		FastPath       *struct {
			Containers int               `json:"containers"`
			TxPackets  uint64            `json:"tx_packets"`
			RxPackets  uint64            `json:"rx_packets"`
			LongWay    map[string]uint64 `json:"long_way"`
			Off        []string          `json:"off"`
			Cut        []string          `json:"cut"`
		} `json:"fastpath"`
		OffloadSwitch offloadSwitch `json:"offload_switch"`
		Peers         []struct {
			Subnet        netip.Prefix   `json:"subnet"`
			PublicIP      netip.Addr     `json:"public_ip"`
			TxFast        uint64         `json:"tx_fast_packets"`
			Problem       string         `json:"problem"`
			OffloadFaults []offloadFault `json:"offload_faults"`
			Checked       bool           `json:"offloads_checked"`
		} `json:"peers"`
	} `json:"backend"`
}

func (n *node) readStatus() (status, error) { return n.askStatus(n.t.Context()) }

func (n *node) askStatus(ctx context.Context) (s status, err error) {
	code, text, err := n.get(ctx, statusPage)
	if err == nil && code != http.StatusOK {
		err = fmt.Errorf("status: code %d", code)
	}
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(text), &s)
}

func (n *node) status() status {
	n.t.Helper()
	s, err := n.readStatus()
	if err != nil {
		n.t.Fatal(err)
	}
	return s
}

// drops is how many packets were refused for a reason.
func (n *node) drops(reason string) uint64 {
	n.t.Helper()
	count, known := n.status().Backend.Drops[reason]
	if !known {
		n.t.Fatalf("the status report has no drops of reason %q", reason)
	}
	return count
}

// awaitProblems waits until the status has that many peers with a problem.
func (n *node) awaitProblems(count int) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("%d peers with a problem", count), func() error {
		text := n.statusText()
		if got := strings.Count(text, `"problem":`); got != count {
			return fmt.Errorf("%d in\n%s", got, text)
		}
		return nil
	})
}

// awaitPeer waits until the node's table has a peer for subnet at addr. If addr is
// invalid, it waits until there is none.
func (n *node) awaitPeer(subnet netip.Prefix, addr netip.Addr) {
	n.t.Helper()
	eventually(n.t, fmt.Sprintf("host %s knows %v at %v", n.Name(), subnet, addr), func() error {
		s, err := n.readStatus()
		if err != nil {
			return err
		}
		for _, p := range s.Backend.Peers {
			if p.Subnet == subnet {
				if p.PublicIP == addr {
					return nil
				}
				return fmt.Errorf("it is at %v", p.PublicIP)
			}
		}
		if addr.IsValid() {
			return errors.New("no such peer")
		}
		return nil
	})
}
