package kube

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Watch implements subnet.Source. Each change of a Node gives an event, so a caller
// that has missed nothing needs no list: the API server ends a watch after some
// minutes, and Watch goes on where it was.
//
// A kubelet writes its Node every few minutes. Such a change gives an Added with
// the attributes as they were. A change of a Node that is no lease gives a Removed,
// which says nothing new to a caller that has none of its subnet. The same holds for
// the leases that a Node with podCIDRs of both families has had before it published
// another family.
func (s *Store) Watch(ctx context.Context, p subnet.Position, fn func(subnet.Rev, []subnet.Event)) error {
	w := watch{Store: s, rev: p.Rev, deliver: fn}
	defer w.end()
	err := s.do(ctx, func(ctx context.Context, c *client) error {
		for {
			if err := w.once(ctx, c); err != nil {
				return err
			}
		}
	})
	return fmt.Errorf("watch nodes from resource version %d: %w", w.rev, err)
}

// watch is one call of Watch.
type watch struct {
	*Store
	rev      subnet.Rev // of the last event or bookmark
	accepted bool
	deliver  func(subnet.Rev, []subnet.Event)
}

// once watches until the API server ends the watch in order (nil) or it fails.
func (w *watch) once(ctx context.Context, c *client) error {
	body, err := c.stream(ctx, request{method: http.MethodGet, path: "nodes", many: true, query: url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"}, "resourceVersion": {strconv.FormatInt(int64(w.rev), 10)},
		"timeoutSeconds": {strconv.Itoa(watchSeconds())},
	}}, w.silence)
	if err != nil {
		return err
	}
	defer body.Close()
	w.accept()
	began := time.Now()
	for r := newEventReader(body); ; {
		e, err := r.next()
		if errors.Is(err, io.EOF) && time.Since(began) > time.Second {
			return nil
		}
		if err != nil { // also an end at once: the next attempt must pause
			return err
		}
		rev, err := e.Object.rev()
		if err != nil {
			return err
		}
		events := w.events(&e)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		w.rev = rev
		w.deliver(rev, events)
	}
}

// accept delivers that the API server has accepted the watch, once.
func (w *watch) accept() {
	if w.accepted {
		return
	}
	w.accepted = true
	w.mu.Lock()
	w.watches++
	w.mu.Unlock()
	w.deliver(w.rev, nil)
}

// end makes our Node unknown again: from now on it changes unseen.
func (w *watch) end() {
	if w.accepted {
		w.mu.Lock()
		w.watches--
		w.mu.Unlock()
	}
}

// events returns the change of leases that e is; none for a bookmark.
func (w *watch) events(e *event) []subnet.Event {
	n := &e.Object
	if e.Type == eventBookmark {
		return nil
	}
	own := w.noteOwn(e)
	l, ok, err := w.config.Annotations.lease(n)
	if err != nil {
		w.bad.Skip(n.Metadata.Name, err)
	}
	switch {
	// Our own annotations, if they are damaged, are to be written again.
	case e.Type == eventDeleted || err == nil && !ok || err != nil && own:
		return removals(n, subnet.Lease{})
	case err != nil:
		// What the peer published before stays in force: a mistake must not disconnect it.
		return nil
	}
	return append(removals(n, l), subnet.Event{Type: subnet.Added, Lease: &l})
}

// removals returns the removals of all leases that n may have been but l. A host of two
// families may publish them one after the other, so its lease has had one part or both.
func removals(n *node, l subnet.Lease) (events []subnet.Event) {
	key, err := n.key()
	if err != nil {
		return nil // it never was a lease
	}
	former := []subnet.Lease{key}
	if len(key.Parts()) > 1 {
		former = append(former, key.Without(inet.IPv6), key.Without(inet.IPv4))
	}
	for _, f := range former {
		if f.Key() != l.Key() {
			events = append(events, subnet.Event{Type: subnet.Removed, Lease: &f})
		}
	}
	return events
}

// noteOwn keeps our own Node as the watch delivers it, and reports whether e is of it.
func (w *watch) noteOwn(e *event) bool {
	name := w.knownName()
	if name == "" || e.Object.Metadata.Name != name {
		return false
	}
	if e.Type == eventDeleted {
		w.setOwn(nil)
	} else {
		w.setOwn(&e.Object)
	}
	return true
}
