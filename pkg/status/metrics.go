package status

import (
	"net/http"
	"net/netip"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

func (c Config) metrics() http.Handler {
	reg := prometheus.NewRegistry()
	reg.MustRegister(
		collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		collector{c.Source, c.Version},
	)
	if c.Reconciles != nil {
		reg.MustRegister(c.Reconciles.seconds)
	}
	return promhttp.HandlerFor(reg, promhttp.HandlerOpts{
		// One invalid series must not hide the others.
		ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: 4, Timeout: answerLimit,
	})
}

// metric is a metric of flannel: its description and kind.
type metric struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

func gauge(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("flannel_"+name, help, labels, nil), prometheus.GaugeValue}
}

func counter(name, help string, labels ...string) metric {
	return metric{prometheus.NewDesc("flannel_"+name, help, labels, nil), prometheus.CounterValue}
}

var (
	buildInfo   = gauge("build_info", "Always 1; the labels are the versions of the program and of Go.", "version", "goversion")
	ready       = gauge("ready", "1 if the host's network is complete, as in /readyz.")
	nodeInfo    = gauge("node_info", "Always 1; the labels are the interface to the other hosts and this host's address.", "iface", "public_ip")
	leaseInfo   = gauge("lease_info", "Always 1; the label is the subnet that this host has leased. Absent without a lease.", "subnet")
	leaseEnd    = gauge("lease_expiration_timestamp_seconds", "When the lease of our subnet ends unless it is renewed. Absent for a reservation, which does not expire.")
	storeUp     = gauge("store_reachable", "1 if the last round trip to the lease store succeeded.", "api")
	storeSince  = gauge("store_since_timestamp_seconds", "When flannel_store_reachable last changed. Absent before the first round trip.")
	badData     = counter("bad_lease_data_total", "Keys and values in the lease store that were ignored, because they did not parse or contradicted another.")
	refused     = gauge("config_refused", "1 if a changed network configuration is not in force, because it needs a restart or is invalid.")
	heldPeers   = gauge("held_peers", "Peers that are kept for now although they disappeared from the store in a mass disappearance.")
	lostLines   = counter("lost_log_lines_total", "Lines of the log that its reader did not take.")
	dataPath    = gauge("datapath_info", "Always 1; the labels are the backend and its data path.", "backend", "datapath")
	mtu         = gauge("mtu_bytes", "Largest packet that a container may send.")
	peers       = gauge("peers", "Number of peers, the other hosts with a subnet.")
	dropped     = counter("dropped_packets_total", "Dropped packets, by reason.", "reason")
	fastServed  = gauge("fastpath_containers", "Addresses of containers that the fast path serves. Absent without a fast path.")
	fastTx      = counter("fastpath_transmit_packets_total", "Containers' packets sent by the fast path.")
	fastRx      = counter("fastpath_receive_packets_total", "Containers' packets received by the fast path.")
	longWay     = counter("fastpath_long_way_packets_total", "Containers' packets that did not take the fast path, by reason.", "reason")
	peerInfo    = gauge("peer_info", "Always 1; the labels are a peer's subnet and address.", "subnet", "public_ip")
	peerTxPkts  = counter("peer_transmit_packets_total", "Containers' packets sent to the host of a subnet.", "subnet")
	peerTx      = counter("peer_transmit_bytes_total", "Bytes of containers' packets sent to the host of a subnet.", "subnet")
	peerRxPkts  = counter("peer_receive_packets_total", "Containers' packets received from the host of a subnet.", "subnet")
	peerRx      = counter("peer_receive_bytes_total", "Bytes of containers' packets received from the host of a subnet.", "subnet")
	peerRTT     = gauge("peer_probe_round_trip_seconds", "Last round trip of a ping to the host of a subnet, through the overlay.", "subnet")
	peerLoss    = gauge("peer_probe_loss_ratio", "Share of the last 20 pings to the host of a subnet that had no answer, 0 to 1.", "subnet")
	peerMTU     = gauge("peer_probe_mtu_bytes", "Largest packet that reaches the host of a subnet. Absent until it is known.", "subnet")
	peerOffload = gauge("peer_offload_fault", "1 while packets to or from the host of a subnet are lost by a fault of an offload, by direction and layer. Absent without a fault.", "subnet", "direction", "layer")
	offloadOff  = gauge("offload_switch_off", "1 while flannel keeps a feature of a device off because of a fault of an offload. Absent without one.", "device", "feature", "layer")
	peerUp      = gauge("peer_probe_answered", "0 while the last three pings to the host of a subnet had no answer.", "subnet")
)

// all lists every metric of collector.
var all = []metric{
	buildInfo, ready, nodeInfo, leaseInfo, leaseEnd, storeUp, storeSince, badData, refused, heldPeers, lostLines, dataPath, mtu, peers, dropped,
	fastServed, fastTx, fastRx, longWay,
	peerInfo, peerTxPkts, peerTx, peerRxPkts, peerRx, peerRTT, peerLoss, peerMTU, peerUp, peerOffload, offloadOff,
}

// collector makes the metrics from a snapshot, at each scrape.
type collector struct {
	source  Source
	version string
}

// Describe implements prometheus.Collector.
func (collector) Describe(ch chan<- *prometheus.Desc) {
	for _, m := range all {
		ch <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(ch chan<- prometheus.Metric) {
	send := func(m metric, value float64, labels ...string) {
		v, err := prometheus.NewConstMetric(m.desc, m.kind, value, labels...)
		if err != nil {
			v = prometheus.NewInvalidMetric(m.desc, err)
		}
		ch <- v
	}
	s := c.source()
	send(buildInfo, 1, c.version, runtime.Version())
	send(ready, boolToFloat(s.ready()))
	send(storeUp, boolToFloat(s.Store.Reachable), s.Store.API)
	if !s.Store.Since.IsZero() {
		send(storeSince, float64(s.Store.Since.UnixMilli())/1000)
	}
	send(badData, float64(s.BadLeaseData))
	send(refused, boolToFloat(s.ConfigRefused != ""))
	send(heldPeers, float64(s.HeldPeers))
	send(lostLines, float64(s.LostLogLines))
	s.sendHost(send)
	if s.Backend == nil {
		return
	}
	send(dataPath, 1, s.Backend.Type, s.Backend.DataPath)
	send(mtu, float64(s.Backend.MTU))
	send(peers, float64(len(s.Backend.Peers)))
	for reason, n := range s.Backend.Drops {
		send(dropped, float64(n), reason)
	}
	if f := s.Backend.FastPath; f != nil {
		send(fastServed, float64(f.Containers))
		send(fastTx, float64(f.TxPackets))
		send(fastRx, float64(f.RxPackets))
		for reason, n := range f.LongWay {
			send(longWay, float64(n), reason)
		}
	}
	s.Backend.sendOffloads(send)
	for _, p := range s.Backend.Peers {
		subnet := p.Subnet.String()
		send(peerInfo, 1, subnet, p.PublicIP.String())
		if !p.Uncounted {
			send(peerTxPkts, float64(p.TxPackets), subnet)
			send(peerTx, float64(p.TxBytes), subnet)
			send(peerRxPkts, float64(p.RxPackets), subnet)
			send(peerRx, float64(p.RxBytes), subnet)
		}
		if r := p.Probe; r != nil {
			send(peerLoss, r.Loss, subnet)
			send(peerUp, boolToFloat(!r.Silent), subnet)
			if r.RTTSeconds > 0 {
				send(peerRTT, r.RTTSeconds, subnet)
			}
			if r.MTU > 0 {
				send(peerMTU, float64(r.MTU), subnet)
			}
		}
	}
}

// sendHost sends the metrics of the host's addresses and lease.
func (s Snapshot) sendHost(send func(metric, float64, ...string)) {
	if s.Node.PublicIP.IsValid() {
		send(nodeInfo, 1, s.Node.Iface, s.Node.PublicIP.String())
	}
	if s.Node.PublicIPv6.IsValid() {
		send(nodeInfo, 1, s.Node.IPv6Iface, s.Node.PublicIPv6.String())
	}
	if l := s.Lease; l != nil {
		for _, subnet := range []netip.Prefix{l.Subnet, l.IPv6Subnet} {
			if subnet.IsValid() {
				send(leaseInfo, 1, subnet.String())
			}
		}
		if !l.Reserved && !l.ExpiresAt.IsZero() {
			send(leaseEnd, float64(l.ExpiresAt.UnixMilli())/1000)
		}
	}
}

func boolToFloat(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// Reconciles is the histogram of the time that reconciling the host takes. Its
// methods are safe for concurrent use.
type Reconciles struct {
	seconds       *prometheus.HistogramVec
	store, kernel prometheus.Observer
}

// NewReconciles returns an empty histogram.
func NewReconciles() *Reconciles {
	seconds := prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "flannel_reconcile_duration_seconds",
		Help:    "Time to reconcile routes and tables, by trigger: store (leases changed) or kernel (the host was compared with the desired state, and repaired).",
		Buckets: prometheus.ExponentialBuckets(0.0001, 10, 6), // to 10 s
	}, []string{"trigger"})
	return &Reconciles{seconds, seconds.WithLabelValues("store"), seconds.WithLabelValues("kernel")}
}

// Store records the time that applying a set of changed leases took.
func (r *Reconciles) Store(took time.Duration) { r.store.Observe(took.Seconds()) }

// Kernel records the time that one pass over the host's state took.
func (r *Reconciles) Kernel(took time.Duration) { r.kernel.Observe(took.Seconds()) }
