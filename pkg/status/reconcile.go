package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reconciles tells how long it takes to bring this host in line with what it
// should be. Its methods are safe for concurrent use.
type Reconciles struct{ seconds *prometheus.HistogramVec }

// The triggers of a reconciliation, as the metric's label has them.
const (
	byStore  = "store"
	byKernel = "kernel"
)

// NewReconciles makes one that has counted nothing.
func NewReconciles() *Reconciles {
	r := &Reconciles{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "flannel_reconcile_duration_seconds",
		Help:    "How long it took to bring routes and tables in line, by what asked for it: store (leases have changed) or kernel (the host was compared with what it should be, and mended).",
		Buckets: prometheus.ExponentialBuckets(0.0001, 10, 6), // to 10 s
	}, []string{"trigger"})}
	for _, trigger := range []string{byStore, byKernel} {
		r.seconds.WithLabelValues(trigger) // a zero is a measured zero
	}
	return r
}

// Store counts one set of changed leases that was put into force.
func (r *Reconciles) Store(took time.Duration) {
	r.seconds.WithLabelValues(byStore).Observe(took.Seconds())
}

// Kernel counts one comparison of the host with what it should be.
func (r *Reconciles) Kernel(took time.Duration) {
	r.seconds.WithLabelValues(byKernel).Observe(took.Seconds())
}
