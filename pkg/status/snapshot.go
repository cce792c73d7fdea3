// Package status tells the outside how the daemon is doing, over HTTP:
//
//	/               a page for people
//	/healthz        200 while the process is alive
//	/readyz         200, or 503 and what is still missing, a line each
//	/metrics        Prometheus metrics, names beginning with flannel_
//	/api/v1/status  Report as JSON
//	/api/v1/stream  Report as a server-sent event, every 2 s
//
// Nothing is pushed here: each request asks the daemon for a Snapshot. All of
// it is read only.
package status

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
)

// Source gives the state of the daemon at the moment of the call. It is called
// from several goroutines at once, and must not wait for the network.
type Source func() Snapshot

// Snapshot is the state of the daemon at one moment.
type Snapshot struct {
	// NotReady are the conditions that are missing for work, in words, e.g.
	// "waiting for a network configuration". None missing is ready.
	NotReady []string `json:"not_ready"`
	Node     Node     `json:"node"`
	// Lease is nil until there is one.
	Lease *Lease `json:"lease"`
	Store Store  `json:"store"`
	// Backend is nil until the network is up.
	Backend *Backend `json:"backend"`
	// BadLeaseData counts how often a key or value in the store was left out,
	// because it did not parse or contradicted another.
	BadLeaseData uint64 `json:"bad_lease_data"`
	// ConfigRefused says why a changed network configuration is not in force;
	// empty while there is none.
	ConfigRefused string `json:"config_refused"`
	// HeldPeers is how many peers the store has lost in a mass disappearance,
	// and packets go to all the same for the time being.
	HeldPeers int `json:"held_peers"`
	// Events are the last things that happened, the latest first.
	Events []Event `json:"events"`
}

// Event is one thing that happened, in words.
type Event struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// Node is this host as its peers know it; zero until the interface is chosen.
type Node struct {
	PublicIP netip.Addr `json:"public_ip"`
	// Iface is the interface that encapsulated packets leave by, MTU its MTU in
	// bytes.
	Iface string `json:"iface"`
	MTU   int    `json:"mtu"`
}

// Lease is the claim on our subnet.
type Lease struct {
	Subnet netip.Prefix `json:"subnet"`
	// ExpiresAt is absent for a reservation, which does not expire.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Reserved  bool      `json:"reserved"`
}

// Store is our connection to where the leases are kept.
type Store struct {
	// API is "2" or "3"; empty until it is known.
	API string `json:"api"`
	// Reachable tells how the last round trip ended, Since when it began to be
	// so; absent before the first.
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since,omitzero"`
}

// Backend is the data plane.
type Backend struct {
	// Type is the configuration's, e.g. "udp".
	Type string `json:"type"`
	// DataPath is what moves the packets, and DataPathReason why it was chosen.
	DataPath       string `json:"datapath"`
	DataPathReason string `json:"datapath_reason"`
	// MTU is the largest packet, in bytes, that a container may send.
	MTU int `json:"mtu"`
	// Drops counts refused packets by reason.
	Drops map[string]uint64 `json:"drops"`
	Peers []Peer            `json:"peers"`
}

// Peer counts the packets exchanged with one other host. Bytes are those of the
// containers' packets, without encapsulation.
type Peer struct {
	Subnet    netip.Prefix `json:"subnet"`
	PublicIP  netip.Addr   `json:"public_ip"`
	TxPackets uint64       `json:"tx_packets"`
	TxBytes   uint64       `json:"tx_bytes"`
	RxPackets uint64       `json:"rx_packets"`
	RxBytes   uint64       `json:"rx_bytes"`
	// Uncounted: the four above are zero because the backend does not count.
	Uncounted bool `json:"uncounted,omitempty"`
	// Problem is why packets cannot be exchanged with this peer; empty: nothing
	// is known.
	Problem string `json:"problem,omitempty"`
	// Probe is nil where the peer is not probed, or not yet.
	Probe *Probe `json:"probe,omitempty"`
}

// Probe is what pings through the overlay have measured.
type Probe struct {
	// RTTSeconds is the last round trip; 0: there was none yet.
	RTTSeconds float64 `json:"rtt_seconds"`
	// Loss is the share of the last 20 probes without an answer, 0 to 1.
	Loss float64 `json:"loss"`
	// MTU is the largest packet in bytes that came through; 0: not known yet.
	MTU int `json:"mtu"`
	// Silent is true while the last three had no answer, Since when that or the
	// opposite began. A peer may be silent because of its firewall alone.
	Silent bool      `json:"silent"`
	Since  time.Time `json:"since,omitzero"`
}

// Report is the JSON that /api/v1/status answers with. Fields may be added to
// it; those that are there keep name and meaning.
type Report struct {
	Version string `json:"version"`
	// UptimeSeconds is whole seconds since the start.
	UptimeSeconds int64 `json:"uptime_seconds"`
	Ready         bool  `json:"ready"`
	Snapshot
}

// warnings are what /readyz tells besides: each is no fault of this host, or one
// that packets go on in spite of. To call the host unready would take containers
// away that may well work.
func (s Snapshot) warnings() []string {
	var said []string
	warn := func(format string, args ...any) { said = append(said, "warning: "+fmt.Sprintf(format, args...)) }
	if !s.Store.Reachable && !s.Store.Since.IsZero() {
		warn("the store does not answer since %s; changes of peers are not learnt", s.Store.Since.UTC().Format(time.RFC3339))
	}
	if s.HeldPeers > 0 {
		warn("the store has lost %d peers at once; packets to them go on for the time being", s.HeldPeers)
	}
	if s.ConfigRefused != "" {
		warn("a changed configuration is not in force: %s", s.ConfigRefused)
	}
	if s.Backend == nil {
		return said
	}
	var silent, faulty []string
	for _, p := range s.Backend.Peers {
		switch {
		case p.Problem != "":
			faulty = append(faulty, fmt.Sprintf("%v (%s)", p.Subnet, p.Problem))
		case p.Probe != nil && p.Probe.Silent:
			silent = append(silent, p.Subnet.String())
		}
	}
	if len(faulty) > 0 {
		warn("%d of %d peers cannot be reached: %s", len(faulty), len(s.Backend.Peers), first(faulty))
	}
	if len(silent) > 0 {
		warn("%d of %d peers do not answer through the overlay: %s", len(silent), len(s.Backend.Peers), first(silent))
	}
	return said
}

// named is how many peers one line names.
const named = 5

func first(names []string) string {
	if len(names) > named {
		names = append(names[:named:named], "…")
	}
	return strings.Join(names, ", ")
}

func (s Snapshot) ready() bool { return len(s.NotReady) == 0 }
