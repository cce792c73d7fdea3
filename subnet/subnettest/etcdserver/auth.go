package etcdserver

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// rootPassword is the password of the root user, which etcd requires.
const rootPassword = "root-secret"

// Client returns a v3 client with all permissions, closed with the test.
func (s *Server) Client() *clientv3.Client {
	s.tb.Helper()
	cfg := clientv3.Config{Endpoints: []string{s.URL()}, TLS: s.tls, Logger: zap.NewNop(), DialTimeout: startLimit}
	if s.o.User != "" {
		cfg.Username, cfg.Password = "root", rootPassword
	}
	c, err := clientv3.New(cfg)
	s.must(err)
	s.tb.Cleanup(func() { c.Close() })
	return c
}

// enableAuth creates the user and requires a login from now on.
func (s *Server) enableAuth() {
	s.tb.Helper()
	ctx, cancel := context.WithTimeout(s.tb.Context(), startLimit)
	defer cancel()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.URL()}, TLS: s.tls, Logger: zap.NewNop()})
	s.must(err)
	defer c.Close()
	for user, password := range map[string]string{"root": rootPassword, s.o.User: s.o.Password} {
		_, err = c.UserAdd(ctx, user, password)
		s.must(err)
		_, err = c.RoleAdd(ctx, user)
		s.must(err)
		_, err = c.UserGrantRole(ctx, user, user)
		s.must(err)
	}
	_, err = c.RoleGrantPermission(ctx, s.o.User, s.o.Prefix, clientv3.GetPrefixRangeEnd(s.o.Prefix),
		clientv3.PermissionType(clientv3.PermReadWrite))
	s.must(err)
	_, err = c.AuthEnable(ctx)
	s.must(err)
	if s.o.V2 {
		s.enableAuthV2(ctx)
	}
}

// enableAuthV2 does the same for the keyspace of the v2 API. It has users of its
// own, and a guest with all permissions by default. The guest keeps the directory
// /public, as each password check takes the server 50 ms or more.
func (s *Server) enableAuthV2(ctx context.Context) {
	s.putV2(ctx, "users/root", fmt.Sprintf(`{"user":"root","password":%q}`, rootPassword))
	s.putV2(ctx, "roles/net", fmt.Sprintf(`{"role":"net","permissions":{"kv":{"read":["%[1]s","%[1]s/*"],"write":["%[1]s","%[1]s/*"]}}}`, s.o.Prefix))
	s.putV2(ctx, "users/"+s.o.User, fmt.Sprintf(`{"user":%q,"password":%q,"roles":["net"]}`, s.o.User, s.o.Password))
	s.putV2(ctx, "enable", "")
	s.putV2(ctx, "roles/guest", `{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}},"grant":{"kv":{"read":["/public/*"],"write":["/public/*"]}}}`)
}

func (s *Server) putV2(ctx context.Context, path, body string) {
	s.tb.Helper()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, s.URL()+"/v2/auth/"+path, strings.NewReader(body))
	s.must(err)
	req.Header.Set("Content-Type", "application/json")
	req.SetBasicAuth("root", rootPassword)
	transport := &http.Transport{TLSClientConfig: s.tls, DisableKeepAlives: true, ResponseHeaderTimeout: 10 * time.Second}
	resp, err := transport.RoundTrip(req)
	s.must(err)
	defer resp.Body.Close()
	if resp.StatusCode >= http.StatusBadRequest {
		s.tb.Fatalf("set up etcd: PUT %s: %s", path, resp.Status)
	}
}
