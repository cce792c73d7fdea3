package cli

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"slices"
	"time"

	"github.com/coreos/flannel/backend/all"
	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/status"
	"github.com/coreos/flannel/pkg/uplink"
	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/store"
)

// storeReads is the number of reads that the store's latency is the median of.
const storeReads = 5

type doctorFlags struct {
	store  *storeFlags
	uplink uplink.Choice
	port   int // 0: that of the network's backend
	etcd   bool
}

func newDoctorFlags(fs *flag.FlagSet) *doctorFlags {
	o := &doctorFlags{store: newStoreFlags(fs)}
	fs.Func("iface", "`interface` to other hosts, by name or IP (default: the default route's)", func(s string) error {
		o.uplink.Ifaces = append(o.uplink.Ifaces, s)
		return nil
	})
	fs.StringVar(&o.uplink.CanReach, "iface-can-reach", "", "`IP` that the interface to other hosts reaches")
	fs.IntVar(&o.port, "port", 0, "UDP `port` that other hosts send to (default: that of the network's backend)")
	fs.BoolVar(&o.etcd, "etcd", true, "check etcd, too")
	return o
}

// facts is the state of the host that several checks judge.
type facts struct {
	flags     *doctorFlags
	uplink    uplink.Uplink
	uplinkErr error // no family has an uplink
	// uplinkLack is why IPv4 has no uplink though the network needs one; uplink is that of
	// IPv6 then.
	uplinkLack error
	report     *status.Report // nil: no daemon answers, because of reportErr
	reportErr  error
	config     *subnet.Config // nil: unknown
	configErr  error          // the configuration is not valid
	store      struct {       // zero if -etcd is false
		err     error // the store cannot be read
		api     string
		warning string
		latency time.Duration
	}
}

// inKubernetes reports whether the store is a Kubernetes cluster.
func (f *facts) inKubernetes() bool { return f.flags.store.flags.Kube.Enabled }

// storeName is the name of the check of the store.
func (f *facts) storeName() string {
	if f.inKubernetes() {
		return "kubernetes"
	}
	return "etcd"
}

func gatherFacts(ctx context.Context, flags *doctorFlags) *facts {
	f := &facts{flags: flags}
	if flags.store.status.addr != "" {
		f.report, _, f.reportErr = flags.store.status.report(ctx)
	}
	flags.store.followDaemon(ctx)
	if flags.etcd {
		f.store.err = flags.store.do(ctx, nil, f.readStore)
	}
	f.findUplink()
	return f
}

// findUplink finds the uplink of the first family that has one, of those that the
// network needs.
func (f *facts) findUplink() {
	wanted := inet.Families[:]
	if f.config != nil {
		wanted = all.Outside(f.config.BackendType, f.config.Backend, f.config.Families())
	}
	var missing []error
	for _, family := range wanted {
		up, err := uplink.Find(f.flags.uplink.Of(family))
		if err == nil {
			f.uplink = up
			if family == inet.IPv6 && f.config != nil {
				f.uplinkLack = errors.Join(missing...)
			}
			return
		}
		missing = append(missing, err)
	}
	f.uplinkErr = missing[0]
}

func (f *facts) readStore(ctx context.Context, st store.Store) error {
	var text []byte
	var latencies []time.Duration
	for range storeReads {
		began := time.Now()
		read, err := st.Config(ctx)
		if err != nil {
			return err
		}
		text, latencies = read, append(latencies, time.Since(began))
	}
	slices.Sort(latencies)
	f.store.api, f.store.warning, f.store.latency = st.API, st.Warning, latencies[storeReads/2].Round(10*time.Microsecond)
	f.config, f.configErr = subnet.ParseConfig(text)
	return nil
}

// endpoint returns the backend and the UDP port that it receives at, 0 if it has
// none.
func (f *facts) endpoint() (backend string, port int) {
	backend = "udp"
	if f.config != nil {
		backend = f.config.BackendType
		var options struct{ Port, ListenPort int }
		if err := json.Unmarshal(f.config.Backend, &options); err == nil { // else checkStore reports it
			port = max(options.Port, options.ListenPort)
		}
	} else if f.report != nil && f.report.Backend != nil {
		backend = f.report.Backend.Type
	}
	standard := all.Ports()[backend]
	switch {
	case standard == 0:
		return backend, 0
	case f.flags.port != 0:
		port = f.flags.port
	case port == 0:
		port = standard
	}
	return backend, port
}
