package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv2"
	"github.com/coreos/flannel/subnet/etcdv3"
)

// probe looks for the network configuration in both keyspaces.
type probe struct {
	cfg     Config
	written string // the prefix, as the operator wrote it
	v3, v2  Store
	*versions
}

func newProbe(c Config, written string) (*probe, error) {
	v, err := newVersions(c.ClientConfig)
	if err != nil {
		return nil, err
	}
	v3, err := openAPI(c.ClientConfig, API3)
	if err != nil {
		return nil, err
	}
	v2, err := openAPI(c.ClientConfig, API2)
	if err != nil {
		closeUnused(v3)
		return nil, err
	}
	return &probe{cfg: c, written: written, v3: v3, v2: v2, versions: v}, nil
}

// release closes the stores that are not chosen.
func (p *probe) release(chosen Store) {
	for _, s := range []Store{p.v3, p.v2} {
		if s.API != chosen.API {
			closeUnused(s)
		}
	}
	p.versions.close()
}

// choose returns the store to use, or the reason why none can be chosen now.
func (p *probe) choose(ctx context.Context) (Store, error) {
	err3 := p.findV3(ctx)
	if err3 == nil {
		log.Infof("use etcd's v3 API: it has key=%q", p.v3.Opened.ConfigKey())
		return p.v3, nil
	}
	writable := p.v3
	if !errors.Is(err3, subnet.ErrNoConfig) {
		if err := p.beforeV3(ctx); err != nil {
			return Store{}, errors.Join(err3, err)
		}
		writable = p.v2
	}
	_, err2 := p.v2.Config(ctx)
	if err2 == nil {
		log.Infof("use etcd's v2 API: it has key=%q and v3 has not reason=%q", p.cfg.ConfigKey(), err3)
		return p.v2, nil
	}
	if !errors.Is(err2, subnet.ErrNoConfig) && !errors.Is(err2, etcdv2.ErrNoAPI) {
		return Store{}, fmt.Errorf("v3: %w; v2: %w", err3, err2)
	}
	if p.cfg.Publish == nil {
		return Store{}, fmt.Errorf("etcd answers, and %w; write one, as in: etcdctl put %s '{\"Network\":\"10.5.0.0/16\"}'",
			subnet.ErrNoConfig, p.cfg.ConfigKey())
	}
	var err error
	if writable.Published, err = writable.PublishConfig(ctx, p.cfg.Publish); err != nil {
		return Store{}, fmt.Errorf("publish network configuration: %w", err)
	}
	log.Infof("use etcd's v%s API: neither had key=%q written=%v", writable.API, p.cfg.ConfigKey(), writable.Published)
	return writable, nil
}

// findV3 makes v3 the store at the prefix that has the configuration.
func (p *probe) findV3(ctx context.Context) error {
	v3, ok := p.v3.Source.(*etcdv3.Store)
	if !ok {
		return fmt.Errorf("find the network configuration: %T is no v3 API", p.v3.Source)
	}
	found, err := findPrefix(ctx, v3, p.cfg.ClientConfig, p.written)
	if err != nil || found.Prefix == p.cfg.Prefix {
		return err
	}
	s, err := openAPI(found, API3)
	if err == nil {
		closeUnused(p.v3)
		p.v3 = s
	}
	return err
}

// versions reads the version of etcd, at /version, which both generations have.
type versions struct{ client *http.Client }

func newVersions(c etcd.ClientConfig) (*versions, error) {
	tls, err := c.TLS()
	if err != nil {
		return nil, err
	}
	return &versions{&http.Client{Transport: &http.Transport{TLSClientConfig: tls}, Timeout: versionTimeout}}, nil
}

func (v *versions) close() { v.client.CloseIdleConnections() }

// errNoEtcd: an endpoint answers as an HTTP server that is no etcd.
var errNoEtcd = errors.New("it is an HTTP server, but no etcd; look at -etcd-endpoints")

const (
	// versionTimeout bounds the request for one endpoint's version.
	versionTimeout = 5 * time.Second
	// maxVersion bounds the answer, which is far shorter.
	maxVersion = 4 << 10 // bytes
)

// beforeV3 returns nil if all endpoints that answer are of an etcd without a v3
// API, and the reason otherwise.
func (p *probe) beforeV3(ctx context.Context) error {
	var unknown []error
	old := false
	for _, e := range p.cfg.Endpoints {
		major, err := p.major(ctx, e)
		switch {
		case err != nil:
			unknown = append(unknown, err)
		case major >= 3:
			return fmt.Errorf("%s is etcd %d, which has the v3 API", e, major)
		default:
			old = true
		}
	}
	if !old {
		return errors.Join(unknown...)
	}
	return nil
}

// major returns the major version of the etcd at an endpoint. Errors: errNoEtcd, or
// the failure of the request.
func (v *versions) major(ctx context.Context, endpoint string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/version", nil)
	if err != nil {
		return 0, fmt.Errorf("get etcd's version: %w", err)
	}
	resp, err := v.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("get etcd's version: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxVersion))
	if err != nil {
		return 0, fmt.Errorf("get etcd's version from %s: %w", endpoint, err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("get etcd's version from %s: %s: %w", endpoint, resp.Status, errNoEtcd)
	}
	n, err := parseMajor(body)
	if err != nil {
		return 0, fmt.Errorf("get etcd's version from %s: %w: %w", endpoint, err, errNoEtcd)
	}
	return n, nil
}

// parseMajor parses `{"etcdserver":"3.4.23",…}`, and the form before etcd 2.1,
// `etcd 0.4.6`.
func parseMajor(body []byte) (int, error) {
	var v struct{ Etcdserver string }
	if err := json.Unmarshal(body, &v); err != nil {
		v.Etcdserver = strings.TrimPrefix(string(body), "etcd ")
	}
	major, _, ok := strings.Cut(v.Etcdserver, ".")
	n, err := strconv.Atoi(major)
	if err != nil || !ok {
		return 0, fmt.Errorf("read etcd's version: %q is not a version", body)
	}
	return n, nil
}
