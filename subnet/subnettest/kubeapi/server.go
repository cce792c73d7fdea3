// Package kubeapi is the part of a Kubernetes API server that flannel uses, in
// memory, for tests of what a real one does seldom: refusals, silence, a history that
// is gone. The suites that run on it run on a real one, too (e2e/kube).
package kubeapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Object is an object of the API as decoded JSON.
type Object = map[string]any

// Server serves Nodes, Pods and Events. Its fields are set before the first request.
type Server struct {
	// NoInitialEvents: a watch with initial events is refused, as before Kubernetes
	// 1.32. NoProgress: it ends with an error event, as with etcd before 3.4.31.
	NoInitialEvents, NoProgress bool
	// PageSize bounds the pages of a list; 0: as the client asks.
	PageSize int

	http *httptest.Server

	mu       sync.Mutex // guards what follows
	rev      int
	nodes    map[string]Object
	pods     map[string]Object
	events   []Object
	history  []change
	oldest   int // history begins after this revision
	changed  chan struct{}
	broken   chan struct{} // closed to end all watches
	requests []string
	refusal  int
}

// change is one entry of the history.
type change struct {
	rev    int
	kind   string
	object []byte
}

// Start starts a Server, which ends with the test.
func Start(t *testing.T) *Server {
	s := &Server{rev: 1, nodes: map[string]Object{}, pods: map[string]Object{}, changed: make(chan struct{}), broken: make(chan struct{})}
	s.http = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() {
		s.Break()
		s.http.Close()
	})
	return s
}

// URL returns the server's URL.
func (s *Server) URL() string { return s.http.URL }

// PutNode creates a Node or replaces its annotations and podCIDRs. A new one gets a
// UID.
func (s *Server) PutNode(name string, annotations map[string]string, podCIDRs ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, exists := s.nodes[name]
	kind := "MODIFIED"
	if !exists {
		kind = "ADDED"
		n = Object{"metadata": Object{"name": name, "uid": fmt.Sprintf("uid-%d", s.rev)}}
		s.nodes[name] = n
	}
	all := Object{}
	for k, v := range annotations {
		all[k] = v
	}
	metadata(n)["annotations"] = all
	spec := Object{}
	if len(podCIDRs) > 0 {
		spec = Object{"podCIDR": podCIDRs[0], "podCIDRs": podCIDRs}
	}
	n["spec"] = spec
	s.record(kind, n)
}

// DeleteNode deletes a Node.
func (s *Server) DeleteNode(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n, ok := s.nodes[name]; ok {
		delete(s.nodes, name)
		s.record("DELETED", n)
	}
}

// PutPod creates a pod on a node.
func (s *Server) PutPod(namespace, name, node string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pods[namespace+"/"+name] = Object{"spec": Object{"nodeName": node}}
}

// Node returns a copy of a Node; nil if there is none.
func (s *Server) Node(name string) Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[name]
	if !ok {
		return nil
	}
	return clone(n)
}

// Annotations returns the annotations of a Node.
func (s *Server) Annotations(name string) map[string]string {
	all := map[string]string{}
	if n := s.Node(name); n != nil {
		for k, v := range object(metadata(n), "annotations") {
			all[k], _ = v.(string)
		}
	}
	return all
}

// Events returns the Events that were created.
func (s *Server) Events() []Object {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.events)
}

// Forget discards the history, as a restarted API server has none.
func (s *Server) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history, s.oldest = nil, s.rev
}

// Break ends all watches, as a connection that is lost does.
func (s *Server) Break() {
	s.mu.Lock()
	defer s.mu.Unlock()
	close(s.broken)
	s.broken = make(chan struct{})
}

// Refuse makes every request fail with an HTTP status; 0: none.
func (s *Server) Refuse(code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.refusal = code
}

// Requests returns the requests so far, as "GET /api/v1/nodes?limit=500".
func (s *Server) Requests() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.requests)
}

// record appends n's present state to the history. It is called with mu held.
func (s *Server) record(kind string, n Object) {
	s.rev++
	metadata(n)["resourceVersion"] = strconv.Itoa(s.rev)
	s.history = append(s.history, change{s.rev, kind, encode(n)})
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r.Method+" "+r.URL.String())
	refusal := s.refusal
	s.mu.Unlock()
	path := strings.Split(strings.TrimPrefix(r.URL.Path, "/api/v1/"), "/")
	switch {
	case refusal != 0:
		fail(w, r, refusal, "Refused", "refused by the test")
	case r.URL.Path == "/api/v1/nodes" && r.URL.Query().Get("watch") != "":
		s.watch(w, r)
	case r.URL.Path == "/api/v1/nodes":
		s.list(w, r)
	case path[0] == "nodes" && r.Method == http.MethodPatch && len(path) == 3:
		s.patch(w, r, path[1])
	case path[0] == "nodes" && len(path) == 2:
		s.get(w, r, s.nodes, path[1])
	case len(path) == 4 && path[2] == "pods":
		s.get(w, r, s.pods, path[1]+"/"+path[3])
	case r.URL.Path == "/api/v1/namespaces/default/events" && r.Method == http.MethodPost:
		s.addEvent(w, r)
	default:
		fail(w, r, http.StatusNotFound, "NotFound", "no such path")
	}
}

func (s *Server) get(w http.ResponseWriter, r *http.Request, from map[string]Object, name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := from[name]
	if !ok {
		fail(w, r, http.StatusNotFound, "NotFound", fmt.Sprintf("%q not found", name))
		return
	}
	answer(w, r, http.StatusOK, o)
}

func (s *Server) addEvent(w http.ResponseWriter, r *http.Request) {
	var e Object
	if json.NewDecoder(r.Body).Decode(&e) != nil {
		fail(w, r, http.StatusBadRequest, "BadRequest", "no JSON")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
	answer(w, r, http.StatusCreated, e)
}

// list answers one page. The continue token is the name that the page begins with.
func (s *Server) list(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if s.PageSize > 0 {
		limit = s.PageSize
	}
	from := r.URL.Query().Get("continue")
	items, meta := []Object{}, Object{"resourceVersion": strconv.Itoa(s.rev)}
	for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
		if name < from {
			continue
		}
		if limit > 0 && len(items) == limit {
			meta["continue"] = name
			break
		}
		items = append(items, s.nodes[name])
	}
	answer(w, r, http.StatusOK, Object{"kind": "NodeList", "metadata": meta, "items": items})
}
