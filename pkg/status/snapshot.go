// Package status serves the daemon's state over HTTP:
//
//	/               web page
//	/healthz        200 while the process is alive
//	/readyz         200, or 503 and the missing conditions, a line each
//	/metrics        Prometheus metrics, names beginning with flannel_
//	/api/v1/status  Report as JSON
//	/api/v1/stream  Report as a server-sent event, every 2 s
//
// Each request takes a Snapshot of the daemon. No request changes anything.
package status

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Source returns the current state of the daemon. It is called concurrently, and
// must not wait for the network.
type Source func() Snapshot

// Snapshot is the state of the daemon at one moment.
type Snapshot struct {
	// NotReady lists the missing conditions in words, e.g. "waiting for a network
	// configuration". The daemon is ready if it is empty.
	NotReady []string `json:"not_ready"`
	Node     Node     `json:"node"`
	// Lease is nil until there is one.
	Lease *Lease `json:"lease"`
	Store Store  `json:"store"`
	// Backend is nil until the network is up.
	Backend *Backend `json:"backend"`
	// BadLeaseData counts keys and values in the store that were ignored, because
	// they did not parse or contradicted another.
	BadLeaseData uint64 `json:"bad_lease_data"`
	// ConfigRefused is why a changed network configuration is not in force; empty
	// if there is none.
	ConfigRefused string `json:"config_refused"`
	// FamilyProblems are the reasons why an address family cannot be used on this host
	// although the network has it. Packets of the other family flow.
	FamilyProblems []string `json:"family_problems,omitempty"`
	// Losses are what the daemon goes on without, such as pings to the peers, with the
	// reasons.
	Losses []string `json:"losses,omitempty"`
	// HeldPeers is how many peers are kept for now although they disappeared from
	// the store in a mass disappearance.
	HeldPeers int `json:"held_peers"`
	// LostLogLines counts the lines of the log that its reader did not take.
	LostLogLines uint64 `json:"lost_log_lines"`
	// Events are the recent events, the latest first.
	Events []Event `json:"events"`
}

// Event is a change of the daemon's state, in words.
type Event struct {
	Time time.Time `json:"time"`
	Text string    `json:"text"`
}

// capacity is how many events an EventLog keeps.
const capacity = 100

// EventLog keeps the last 100 events. The zero EventLog is empty. Its methods are
// safe for concurrent use.
type EventLog struct {
	mu     sync.Mutex
	events []Event // oldest first
}

// Add adds an event that happens now.
func (l *EventLog) Add(text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.events) == capacity {
		l.events = slices.Delete(l.events, 0, 1)
	}
	l.events = append(l.events, Event{time.Now(), text})
}

// Recent returns the events, the latest first.
func (l *EventLog) Recent() []Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	recent := slices.Clone(l.events)
	slices.Reverse(recent)
	return recent
}

// Node is this host as its peers see it; zero until the uplink is known.
type Node struct {
	PublicIP netip.Addr `json:"public_ip"`
	// Iface is the interface to the other hosts. MTU is its MTU in bytes.
	Iface string `json:"iface"`
	MTU   int    `json:"mtu"`
	// PublicIPv6, IPv6Iface and IPv6MTU are those for outer IPv6 headers; absent
	// without.
	PublicIPv6 netip.Addr `json:"public_ipv6,omitzero"`
	IPv6Iface  string     `json:"ipv6_iface,omitempty"`
	IPv6MTU    int        `json:"ipv6_mtu,omitempty"`
}

// Lease is the lease of our subnets.
type Lease struct {
	// Subnet is the IPv4 subnet, empty without one; IPv6Subnet is absent without one.
	Subnet     netip.Prefix `json:"subnet"`
	IPv6Subnet netip.Prefix `json:"ipv6_subnet,omitzero"`
	// ExpiresAt is absent for a lease that does not expire, such as a reservation.
	ExpiresAt time.Time `json:"expires_at,omitzero"`
	Reserved  bool      `json:"reserved"`
}

// Subnets returns the subnets for logs and messages, separated by a comma.
func (l Lease) Subnets() string {
	switch {
	case !l.IPv6Subnet.IsValid():
		return l.Subnet.String()
	case !l.Subnet.IsValid():
		return l.IPv6Subnet.String()
	}
	return l.Subnet.String() + "," + l.IPv6Subnet.String()
}

// Store is the connection to the lease store.
type Store struct {
	// API is etcd's, "2" or "3"; empty until it is known.
	API string `json:"api"`
	// Endpoints are etcd's URLs, without credentials. Prefix is the path of the
	// network's keys.
	Endpoints []string `json:"endpoints,omitempty"`
	Prefix    string   `json:"prefix,omitempty"`
	// Reachable is true if the last round trip succeeded. Since is when Reachable
	// last changed; absent before the first round trip.
	Reachable bool      `json:"reachable"`
	Since     time.Time `json:"since,omitzero"`
}

// Backend is the data plane.
type Backend struct {
	// Type is the configuration's, e.g. "udp".
	Type string `json:"type"`
	// DataPath is what moves the packets. DataPathReason is why it was chosen.
	DataPath       string `json:"datapath"`
	DataPathReason string `json:"datapath_reason"`
	// MTU is the largest packet, in bytes, that a container may send.
	MTU int `json:"mtu"`
	// Drops counts dropped packets by reason.
	Drops map[string]uint64 `json:"drops"`
	// FastPath is nil if the backend has none.
	FastPath *FastPath `json:"fastpath,omitempty"`
	// OffloadSwitch is the switch that is off because of a fault of an offload; nil: none.
	OffloadSwitch *OffloadSwitch `json:"offload_switch,omitempty"`
	Peers         []Peer         `json:"peers"`
}

// FastPath counts packets between containers and the tunnel device or the uplink that
// pass bridge, firewall rules and routing by.
type FastPath struct {
	// Containers is the number of addresses that it serves.
	Containers int    `json:"containers"`
	TxPackets  uint64 `json:"tx_packets"`
	RxPackets  uint64 `json:"rx_packets"`
	// LongWay counts the packets that did not take it, by reason.
	LongWay map[string]uint64 `json:"long_way"`
	// Off are the reasons why it does not serve some or all containers.
	Off []string `json:"off,omitempty"`
	// Cut says which devices of the long way cut super-packets, and why.
	Cut []string `json:"cut,omitempty"`
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
	// TxFast is the number of TxPackets that took the fast path.
	TxFast uint64 `json:"tx_fast_packets,omitempty"`
	// Uncounted is true if the backend does not count; the four above are zero then.
	Uncounted bool `json:"uncounted,omitempty"`
	// Problem is why packets cannot be exchanged with this peer; empty if no reason
	// is known.
	Problem string `json:"problem,omitempty"`
	// Probe is nil if the peer is not probed, or not yet.
	Probe *Probe `json:"probe,omitempty"`
	// OffloadFaults are the faults of offloads on the path, one for each direction at
	// most.
	OffloadFaults []OffloadFault `json:"offload_faults,omitempty"`
	// OffloadsChecked is true if it is known whether packets to the host meet a fault of an
	// offload. It is false before the first check, and while a failed one is looked into.
	OffloadsChecked bool `json:"offloads_checked,omitempty"`
}

// Probe is the result of pings through the overlay.
type Probe struct {
	// RTTSeconds is the last round trip; 0 before the first.
	RTTSeconds float64 `json:"rtt_seconds"`
	// Loss is the share of the last 20 probes without an answer, 0 to 1.
	Loss float64 `json:"loss"`
	// MTU is the largest packet, in bytes, that reaches the peer; 0 until it is known.
	MTU int `json:"mtu"`
	// Silent is true while the last three had no answer. Since is when Silent last
	// changed. A peer may be silent only because of its firewall.
	Silent bool      `json:"silent"`
	Since  time.Time `json:"since,omitzero"`
}

// Report is the JSON of /api/v1/status. Fields may be added; the present ones keep
// name and meaning.
type Report struct {
	Version string `json:"version"`
	// UptimeSeconds is whole seconds since the start.
	UptimeSeconds int64 `json:"uptime_seconds"`
	Ready         bool  `json:"ready"`
	Snapshot
}

// warnings returns the faults that /readyz lists without becoming 503: packets
// still flow, or the fault is another host's. An orchestrator would take containers
// that work away from an unready host.
func (s Snapshot) warnings() []string {
	var warnings []string
	warn := func(format string, args ...any) {
		warnings = append(warnings, "warning: "+fmt.Sprintf(format, args...))
	}
	if !s.Store.Reachable && !s.Store.Since.IsZero() {
		warn("the store has not answered since %s; peers are as they were then", s.Store.Since.UTC().Format(time.RFC3339))
	}
	if s.HeldPeers > 0 {
		warn("%d peers disappeared from the store at once; packets still go to them", s.HeldPeers)
	}
	if s.ConfigRefused != "" {
		warn("a changed configuration is not in force: %s", s.ConfigRefused)
	}
	for _, problem := range s.FamilyProblems {
		warn("%s", problem)
	}
	for _, loss := range s.Losses {
		warn("%s", loss)
	}
	if s.Backend == nil {
		return warnings
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
	warnings = append(warnings, s.Backend.offloadWarnings()...)
	if len(faulty) > 0 {
		warn("%d of %d peers cannot be reached: %s", len(faulty), len(s.Backend.Peers), join(faulty))
	}
	if len(silent) > 0 {
		warn("%d of %d peers do not answer through the overlay: %s", len(silent), len(s.Backend.Peers), join(silent))
	}
	return warnings
}

// maxNames is how many peers one line names.
const maxNames = 5

func join(names []string) string {
	if len(names) > maxNames {
		names = append(names[:maxNames:maxNames], "…")
	}
	return strings.Join(names, ", ")
}

func (s Snapshot) ready() bool { return len(s.NotReady) == 0 }
