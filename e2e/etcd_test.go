package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// prefix is where the network's keys are, the flag's default.
const prefix = "/coreos.com/network"

// keys is an etcd's keyspace as one of its two APIs shows it. Keys are
// relative to prefix.
type keys interface {
	put(t *testing.T, key, value string, ttl time.Duration)
	del(t *testing.T, key string)
	list(t *testing.T, dir string) map[string]string
}

// startEtcd runs etcd on h, and talks to it from there.
func startEtcd(t *testing.T, h *netnstest.Host) *etcdserver.Server {
	t.Helper()
	return etcdserver.Start(t, etcdserver.Options{
		V2:      true,
		Listen:  net.JoinHostPort(h.Addr().Addr().String(), "2379"),
		Command: []string{"ip", "netns", "exec", h.Netns()},
		Args:    []string{"--log-level=info"}, // Start waits for the log line that it serves
	})
}

// keysV3 is the keyspace of the v3 API.
type keysV3 struct{ *clientv3.Client }

func openV3(t *testing.T, h *netnstest.Host, endpoints ...string) keysV3 {
	t.Helper()
	redial := backoff.DefaultConfig
	redial.MaxDelay = 100 * time.Millisecond // the test's view of the store is not to lag behind the daemons'
	c, err := clientv3.New(clientv3.Config{
		Endpoints: endpoints,
		Logger:    zap.NewNop(),
		DialOptions: []grpc.DialOption{
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				return h.Dial(ctx, "tcp", strings.TrimPrefix(addr, "http://"))
			}),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: patience}),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return keysV3{c}
}

func limited(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func (k keysV3) put(t *testing.T, key, value string, ttl time.Duration) {
	t.Helper()
	var options []clientv3.OpOption
	if ttl > 0 {
		lease, err := k.Grant(limited(t), int64(ttl.Seconds()))
		if err != nil {
			t.Fatal(err)
		}
		options = append(options, clientv3.WithLease(lease.ID))
	}
	if _, err := k.Put(limited(t), prefix+"/"+key, value, options...); err != nil {
		t.Fatal(err)
	}
}

func (k keysV3) del(t *testing.T, key string) {
	t.Helper()
	if _, err := k.Delete(limited(t), prefix+"/"+key); err != nil {
		t.Fatal(err)
	}
}

func (k keysV3) list(t *testing.T, dir string) map[string]string {
	t.Helper()
	answer, err := k.Get(limited(t), prefix+"/"+dir+"/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, kv := range answer.Kvs {
		found[strings.TrimPrefix(string(kv.Key), prefix+"/"+dir+"/")] = string(kv.Value)
	}
	return found
}

// keysV2 is the keyspace of the v2 API, in plain HTTP.
type keysV2 struct {
	http     *http.Client
	endpoint string
}

func openV2(h *netnstest.Host, endpoint string) keysV2 { return keysV2{h.HTTP(), endpoint} }

func (k keysV2) call(t *testing.T, method, key string, form url.Values) []byte {
	t.Helper()
	req, err := http.NewRequestWithContext(limited(t), method, k.endpoint+"/v2/keys"+prefix+"/"+key, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := k.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode >= http.StatusBadRequest && resp.StatusCode != http.StatusNotFound {
		t.Fatalf("%s %s: %s: %s", method, key, resp.Status, body)
	}
	return body
}

func (k keysV2) put(t *testing.T, key, value string, ttl time.Duration) {
	t.Helper()
	form := url.Values{"value": {value}}
	if ttl > 0 {
		form.Set("ttl", fmt.Sprint(int(ttl.Seconds())))
	}
	k.call(t, http.MethodPut, key, form)
}

func (k keysV2) del(t *testing.T, key string) {
	t.Helper()
	k.call(t, http.MethodDelete, key, nil)
}

func (k keysV2) list(t *testing.T, dir string) map[string]string {
	t.Helper()
	var answer struct {
		Node struct {
			Nodes []struct{ Key, Value string }
		}
	}
	if err := json.Unmarshal(k.call(t, http.MethodGet, dir, nil), &answer); err != nil {
		t.Fatal(err)
	}
	found := make(map[string]string)
	for _, n := range answer.Node.Nodes {
		found[strings.TrimPrefix(n.Key, prefix+"/"+dir+"/")] = n.Value
	}
	return found
}
