package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"net/url"
	"path"
	"strings"
	"time"
)

const (
	leaseTTL  = 86400 // s
	pollEvery = 50 * time.Millisecond
)

// store is the lease store. Keys are like 10.5.9.0-24, values like
// {"PublicIP":"192.168.77.2"}.
type store interface {
	putLease(ctx context.Context, subnet netip.Prefix, publicIP netip.Addr) error
	// leases maps keys to values.
	leases(ctx context.Context) (map[string]string, error)
}

// syncRoutes keeps the routes equal to the leases in the store until ctx ends. It
// polls, which suffices for a test.
func (p *peer) syncRoutes(ctx context.Context) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		all, err := p.store.leases(ctx)
		if err != nil {
			return err
		}
		routes := make(map[netip.Prefix]netip.Addr)
		for key, value := range all {
			subnet, err := netip.ParsePrefix(strings.Replace(key, "-", "/", 1))
			var lease struct{ PublicIP netip.Addr }
			if err == nil {
				err = json.Unmarshal([]byte(value), &lease)
			}
			if err == nil && subnet != p.subnet {
				routes[subnet] = lease.PublicIP
			}
		}
		p.mu.Lock()
		p.routes = routes
		p.mu.Unlock()
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func leaseKey(subnet netip.Prefix) string { return strings.Replace(subnet.String(), "/", "-", 1) }

// storeV2 is etcd's v2 API: keys with a TTL of their own.
type storeV2 struct{ endpoint, prefix string }

func (s storeV2) dir() string { return s.endpoint + "/v2/keys" + s.prefix + "/subnets" }

func (s storeV2) putLease(ctx context.Context, subnet netip.Prefix, publicIP netip.Addr) error {
	form := url.Values{
		"value":     {fmt.Sprintf(`{"PublicIP":"%v"}`, publicIP)},
		"ttl":       {fmt.Sprint(leaseTTL)},
		"prevExist": {"false"},
	}
	return call(ctx, http.MethodPut, s.dir()+"/"+leaseKey(subnet), "application/x-www-form-urlencoded", []byte(form.Encode()), nil)
}

func (s storeV2) leases(ctx context.Context) (map[string]string, error) {
	var answer struct {
		Node struct{ Nodes []struct{ Key, Value string } }
	}
	if err := call(ctx, http.MethodGet, s.dir(), "", nil, &answer); err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, n := range answer.Node.Nodes {
		found[path.Base(n.Key)] = n.Value
	}
	return found, nil
}

// storeV3 is etcd's v3 API through its JSON gateway, which has bytes in base64 and
// 64-bit numbers as strings. encoding/json encodes bytes so.
type storeV3 struct{ endpoint, prefix string }

func (s storeV3) putLease(ctx context.Context, subnet netip.Prefix, publicIP netip.Addr) error {
	var lease struct{ ID string }
	if err := s.call(ctx, "lease/grant", map[string]any{"TTL": leaseTTL}, &lease); err != nil {
		return err
	}
	key := []byte(s.prefix + "/subnets/" + leaseKey(subnet))
	value := fmt.Appendf(nil, `{"PublicIP":"%v","PublicIPv6":null}`, publicIP)
	var answer struct{ Succeeded bool }
	err := s.call(ctx, "kv/txn", map[string]any{
		"compare": []any{map[string]any{"key": key, "target": "VERSION", "version": "0"}},
		"success": []any{map[string]any{"requestPut": map[string]any{"key": key, "value": value, "lease": lease.ID}}},
	}, &answer)
	if err == nil && !answer.Succeeded {
		err = fmt.Errorf("lease %v is taken", subnet)
	}
	return err
}

func (s storeV3) leases(ctx context.Context) (map[string]string, error) {
	dir := s.prefix + "/subnets/"
	var answer struct{ KVs []struct{ Key, Value []byte } }
	err := s.call(ctx, "kv/range", map[string]any{
		"key": []byte(dir), "range_end": []byte(strings.TrimSuffix(dir, "/") + "0"), // '0' is '/' + 1
	}, &answer)
	if err != nil {
		return nil, err
	}
	found := make(map[string]string)
	for _, kv := range answer.KVs {
		found[path.Base(string(kv.Key))] = string(kv.Value)
	}
	return found, nil
}

func (s storeV3) call(ctx context.Context, method string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return err
	}
	return call(ctx, http.MethodPost, s.endpoint+"/v3/"+method, "application/json", body, answer)
}

func call(ctx context.Context, method, url, contentType string, body []byte, answer any) error {
	req, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", contentType)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	switch {
	case err != nil:
		return fmt.Errorf("%s %s: %w", method, url, err)
	case resp.StatusCode >= http.StatusBadRequest:
		return fmt.Errorf("%s %s: %s: %s", method, url, resp.Status, text)
	case answer == nil:
		return nil
	}
	return json.Unmarshal(text, answer)
}
