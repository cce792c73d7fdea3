package status

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Reconciles is the histogram of the time that reconciling the host takes. Its
// methods are safe for concurrent use.
type Reconciles struct{ seconds *prometheus.HistogramVec }

// Values of the metric's label: what triggered the reconciliation.
const (
	byStore  = "store"
	byKernel = "kernel"
)

// NewReconciles returns an empty histogram.
func NewReconciles() *Reconciles {
	r := &Reconciles{prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name:    "flannel_reconcile_duration_seconds",
		Help:    "Time to reconcile routes and tables, by trigger: store (leases changed) or kernel (the host was compared with the desired state, and repaired).",
		Buckets: prometheus.ExponentialBuckets(0.0001, 10, 6), // to 10 s
	}, []string{"trigger"})}
	for _, trigger := range []string{byStore, byKernel} {
		r.seconds.WithLabelValues(trigger) // a zero is measured, not absent
	}
	return r
}

// Store records the time that applying a set of changed leases took.
func (r *Reconciles) Store(took time.Duration) {
	r.seconds.WithLabelValues(byStore).Observe(took.Seconds())
}

// Kernel records the time that one pass over the host's state took.
func (r *Reconciles) Kernel(took time.Duration) {
	r.seconds.WithLabelValues(byKernel).Observe(took.Seconds())
}
