package kubeapi

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
)

// watch streams changes until the client leaves or Break.
func (s *Server) watch(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	initial := q.Get("sendInitialEvents") == "true"
	after, _ := strconv.Atoi(q.Get("resourceVersion"))
	s.mu.Lock()
	broken, oldest, rev := s.broken, s.oldest, s.rev
	var first []change
	if initial {
		for _, name := range slices.Sorted(maps.Keys(s.nodes)) {
			first = append(first, change{rev, "ADDED", encode(s.nodes[name])})
		}
		end := Object{"metadata": Object{"resourceVersion": strconv.Itoa(rev), "annotations": Object{"k8s.io/initial-events-end": "true"}}}
		first, after = append(first, change{rev, "BOOKMARK", encode(end)}), rev
	}
	s.mu.Unlock()
	switch {
	case initial && s.NoInitialEvents:
		fail(w, r, http.StatusUnprocessableEntity, "Invalid", "sendInitialEvents is forbidden")
		return
	case initial && s.NoProgress:
		first = []change{{rev, "ERROR", encode(status(http.StatusInternalServerError, "InternalError", "progress is not supported"))}}
	case !initial && after < oldest:
		first = []change{{rev, "ERROR", encode(status(http.StatusGone, "Expired", fmt.Sprintf("too old resource version: %d (%d)", after, oldest)))}}
	case !initial && after > rev:
		fail(w, r, http.StatusGatewayTimeout, "Timeout", fmt.Sprintf("Too large resource version: %d, current: %d", after, rev))
		return
	}
	w.WriteHeader(http.StatusOK)
	out := http.NewResponseController(w)
	_ = out.Flush() // a client that has gone ends the request
	for {
		for _, c := range first {
			_, _ = w.Write(eventOf(r, c)) // a client that has gone ends the request
			if c.kind == "ERROR" {
				return
			}
		}
		_ = out.Flush()
		var changed chan struct{}
		first, after, changed = s.since(after)
		if len(first) > 0 {
			continue
		}
		select {
		case <-changed:
		case <-broken: // the client sees a connection that is cut
			if conn, _, err := out.Hijack(); err == nil {
				conn.Close()
			}
			return
		case <-r.Context().Done():
			return
		}
	}
}

// since returns the changes after a revision, the last of their revisions, and a
// channel that the next change closes.
func (s *Server) since(after int) ([]change, int, chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var found []change
	for _, c := range s.history {
		if c.rev > after {
			found = append(found, c)
		}
	}
	if len(found) > 0 {
		after = found[len(found)-1].rev
	}
	return found, after, s.changed
}

// patch applies a JSON merge patch (RFC 7396), or the strategic one of conditions,
// to a Node's status object.
func (s *Server) patch(w http.ResponseWriter, r *http.Request, name string) {
	var p Object
	if json.NewDecoder(r.Body).Decode(&p) != nil {
		fail(w, r, http.StatusBadRequest, "BadRequest", "no JSON")
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	n, ok := s.nodes[name]
	if !ok {
		fail(w, r, http.StatusNotFound, "NotFound", fmt.Sprintf("nodes %q not found", name))
		return
	}
	if uid, ok := object(p, "metadata")["uid"]; ok && uid != metadata(n)["uid"] {
		fail(w, r, http.StatusUnprocessableEntity, "Invalid", "metadata.uid: field is immutable")
		return
	}
	before := string(encode(n))
	delete(p, "spec")
	if r.Header.Get("Content-Type") == "application/strategic-merge-patch+json" {
		mergeConditions(n, p)
	} else {
		merge(n, p)
	}
	if string(encode(n)) != before {
		s.record("MODIFIED", n)
	}
	answer(w, r, http.StatusOK, n)
}

// merge applies the JSON merge patch p to o.
func merge(o, p Object) {
	for k, v := range p {
		inner, nested := v.(Object)
		switch {
		case v == nil:
			delete(o, k)
		case nested:
			if _, ok := o[k].(Object); !ok {
				o[k] = Object{}
			}
			merge(object(o, k), inner)
		default:
			o[k] = v
		}
	}
}

// mergeConditions replaces the conditions of n that have the types of those in p.
func mergeConditions(n, p Object) {
	if _, ok := n["status"].(Object); !ok {
		n["status"] = Object{}
	}
	have, _ := object(n, "status")["conditions"].([]any)
	added, _ := object(p, "status")["conditions"].([]any)
	for _, c := range added {
		kind := c.(Object)["type"]
		have = slices.DeleteFunc(have, func(h any) bool { return h.(Object)["type"] == kind })
		have = append(have, c)
	}
	object(n, "status")["conditions"] = have
}

func metadata(o Object) Object { return object(o, "metadata") }

// object returns the object at a key; an empty one without.
func object(o Object, key string) Object {
	inner, _ := o[key].(Object)
	if inner == nil {
		return Object{}
	}
	return inner
}

func encode(o Object) []byte {
	// These objects come from JSON or are made here, so they always encode.
	text, _ := json.Marshal(o)
	return text
}

func clone(o Object) (c Object) {
	_ = json.Unmarshal(encode(o), &c) // the result of encode decodes
	return c
}

func status(code int, reason, message string) Object {
	return Object{"kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}
}

func fail(w http.ResponseWriter, r *http.Request, code int, reason, message string) {
	answer(w, r, code, status(code, reason, message))
}

func answer(w http.ResponseWriter, r *http.Request, code int, o Object) {
	text, contentType := encode(o), "application/json"
	if kind, ok := o["kind"].(string); ok && acceptsProtobuf(r) {
		text, contentType = protobuf(kind, text), protobufType
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(code)
	_, _ = w.Write(text) // a client that has gone has no use for it
}
