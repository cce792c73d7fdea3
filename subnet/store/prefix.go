package store

import (
	"context"
	"errors"
	"slices"
	"strings"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// prefixes returns the prefixes that the operator may mean by written, in the order
// to look at. In etcd's v3 keyspace a key is any text, so each slash counts:
// coreos.com/network/config is not /coreos.com/network/config. The v2 API has one
// key for all of them, the canonical one.
func prefixes(written, canonical string) []string {
	var all []string
	for _, p := range []string{written, strings.TrimRight(written, "/"), canonical, strings.TrimPrefix(canonical, "/")} {
		if !slices.Contains(all, p) && (p != "" || canonical == "") {
			all = append(all, p)
		}
	}
	return all
}

// findPrefix looks for the configuration at the prefixes that the operator may
// mean. It returns the configuration of a client of the first that has one.
func findPrefix(ctx context.Context, s *etcdv3.Store, cfg etcd.ClientConfig, written string) (found etcd.ClientConfig, err error) {
	var failed error
	for _, p := range prefixes(written, cfg.Prefix) {
		_, _, err := s.ConfigAt(ctx, p)
		switch {
		case err == nil:
			if p != written {
				log.Warningf("read key=%q: -etcd-prefix=%s names no key, and etcd's v3 keys differ by each slash", p+"/config", written)
			}
			cfg.Prefix, cfg.Verbatim = p, true
			return cfg, nil
		case p == cfg.Prefix:
			if failed = err; !errors.Is(err, subnet.ErrNoConfig) {
				return cfg, err
			}
		case !errors.Is(err, subnet.ErrNoConfig):
			// The user may have no right to read other keys.
			log.V(1).Infof("look for the network configuration: %v", err)
		}
	}
	return cfg, failed
}
