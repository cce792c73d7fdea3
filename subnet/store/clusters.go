package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// surveyTimeout bounds the look at several endpoints. One that does not answer in
// time stays in use: it may be down for now.
const surveyTimeout = 2 * time.Second

// sighting is what one endpoint answered.
type sighting struct {
	endpoint   string
	cluster    uint64 // 0 if it is not known
	configured bool   // it has the network configuration
	problem    error  // it answers, and is no etcd
}

// before reports whether s is of a cluster to prefer to that of t.
func (s sighting) before(t sighting) bool {
	if s.configured != t.configured {
		return s.configured
	}
	return s.cluster < t.cluster
}

// oneCluster returns cfg with the endpoints of one cluster, and a warning if that
// leaves out some: a client of two clusters would see and write each of them by
// turns. The cluster that has the network configuration is the one; of several the
// one with the lowest id, so that hosts agree whatever the order of their endpoints.
func oneCluster(ctx context.Context, cfg etcd.ClientConfig, written string) (_ etcd.ClientConfig, warning string, err error) {
	if len(cfg.Endpoints) < 2 {
		return cfg, "", nil
	}
	seen, err := survey(ctx, cfg, written)
	if err != nil {
		return cfg, "", err
	}
	var chosen *sighting
	for i := range seen {
		s := &seen[i]
		if s.problem != nil {
			log.Warningf("endpoint of -etcd-endpoints is of no use endpoint=%s reason=%q", s.endpoint, s.problem)
		}
		if s.cluster != 0 && (chosen == nil || s.before(*chosen)) {
			chosen = s
		}
	}
	if chosen == nil {
		return cfg, "", nil
	}
	var kept, left []string
	for _, s := range seen {
		if s.cluster != 0 && s.cluster != chosen.cluster {
			left = append(left, fmt.Sprintf("%s (cluster %x)", s.endpoint, s.cluster))
		} else {
			kept = append(kept, s.endpoint)
		}
	}
	if left == nil {
		return cfg, "", nil
	}
	why := "it has " + cfg.ConfigKey()
	if slices.ContainsFunc(seen, func(s sighting) bool {
		return s.cluster != 0 && s.cluster != chosen.cluster && s.configured == chosen.configured
	}) {
		why = "its id is the lowest"
	}
	cfg.Endpoints = kept
	warning = fmt.Sprintf("the endpoints are of different etcd clusters: use that of %s (cluster %x), as %s, and leave out %s; name the members of one cluster in -etcd-endpoints (etcdctl member list)",
		chosen.endpoint, chosen.cluster, why, strings.Join(left, ", "))
	log.Warning(warning)
	return cfg, warning, nil
}

// survey looks at each endpoint, side by side.
func survey(ctx context.Context, cfg etcd.ClientConfig, written string) ([]sighting, error) {
	v, err := newVersions(cfg)
	if err != nil {
		return nil, err
	}
	defer v.close()
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	seen := make([]sighting, len(cfg.Endpoints))
	errs := make([]error, len(cfg.Endpoints))
	var wg sync.WaitGroup
	for i, e := range cfg.Endpoints {
		one := cfg
		one.Endpoints = []string{e}
		wg.Go(func() { seen[i], errs[i] = v.sight(ctx, one, written) })
	}
	wg.Wait()
	return seen, errors.Join(errs...)
}

// sight looks at the one endpoint of cfg. The error is that of cfg.
func (v *versions) sight(ctx context.Context, cfg etcd.ClientConfig, written string) (sighting, error) {
	s := sighting{endpoint: cfg.Endpoints[0]}
	store, err := etcdv3.New(cfg)
	if err != nil {
		return s, err
	}
	defer closeUnused(store)
	for _, p := range prefixes(written, cfg.Prefix) {
		_, cluster, err := store.ConfigAt(ctx, p)
		if cluster != 0 {
			s.cluster, s.configured = cluster, err == nil
		}
		if err == nil || !errors.Is(err, subnet.ErrNoConfig) {
			break
		}
	}
	if s.cluster == 0 || !s.configured { // no v3 API, or a configuration in the v2 keyspace
		v.sightV2(ctx, cfg, &s)
	}
	if s.cluster == 0 && ctx.Err() == nil {
		_, s.problem = v.major(ctx, s.endpoint)
		if !errors.Is(s.problem, errNoEtcd) {
			s.problem = nil
		}
	}
	return s, nil
}

// sightV2 looks by the v2 API, whose answers have the cluster's id in a header
// (etcdserver/api/v2http/client.go).
func (v *versions) sightV2(ctx context.Context, cfg etcd.ClientConfig, s *sighting) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.endpoint+"/v2/keys"+cfg.ConfigKey(), nil)
	if err != nil {
		return
	}
	if cfg.Username != "" {
		req.SetBasicAuth(cfg.Username, cfg.Password)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return
	}
	resp.Body.Close()
	if id, err := strconv.ParseUint(resp.Header.Get("X-Etcd-Cluster-Id"), 16, 64); err == nil {
		s.cluster, s.configured = id, s.configured || resp.StatusCode == http.StatusOK
	}
}

// describeEndpoints adds to a failure of the v3 API what the endpoints are.
func describeEndpoints(ctx context.Context, cfg etcd.ClientConfig, failed error) error {
	v, err := newVersions(cfg)
	if err != nil {
		return failed
	}
	defer v.close()
	ctx, cancel := context.WithTimeout(ctx, surveyTimeout)
	defer cancel()
	for _, e := range cfg.Endpoints {
		major, err := v.major(ctx, e)
		switch {
		case err == nil && major < 3:
			return fmt.Errorf("%w; %s is etcd %d, which has no v3 API: -etcd-api=2 or auto", failed, e, major)
		case errors.Is(err, errNoEtcd):
			return fmt.Errorf("%w; %w", failed, err)
		}
	}
	return failed
}
