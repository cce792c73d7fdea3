package kube

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/subnet"
)

const (
	// pageSize is the number of Nodes in one page, client-go's.
	pageSize = 500
	// initialEventsEnd is the annotation of the bookmark that follows the initial
	// events (KEP-3157).
	initialEventsEnd = "k8s.io/initial-events-end"
)

// List implements subnet.Source.
func (s *Store) List(ctx context.Context) ([]subnet.Lease, subnet.Position, error) {
	var leases []subnet.Lease
	rev, err := s.list(ctx, func(n *node) {
		switch l, ok, err := s.config.Annotations.lease(n); {
		case err != nil:
			s.bad.Skip(n.Metadata.Name, err)
		case ok:
			leases = append(leases, l)
		}
	})
	if err != nil {
		return nil, subnet.Position{}, fmt.Errorf("list nodes: %w", err)
	}
	return leases, subnet.Position{Rev: rev, Resumes: true}, nil
}

// list calls each with every Node, and returns the resource version of the list.
// It may fail after some calls.
func (s *Store) list(ctx context.Context, each func(*node)) (rev subnet.Rev, err error) {
	name, err := s.selfName(ctx)
	if err != nil {
		return 0, err
	}
	var self *node
	err = s.do(ctx, func(ctx context.Context, c *client) error {
		visit := func(n *node) {
			if name != "" && n.Metadata.Name == name {
				self = n
			}
			each(n)
		}
		if rev, err = listByWatch(ctx, c, visit); refusesInitialEvents(err) {
			log.V(1).Infof("list nodes in pages reason=%q", err)
			rev, err = listByPages(ctx, c, visit)
		}
		return err
	})
	if err == nil {
		s.setOwn(self)
	}
	return rev, err
}

// refusesInitialEvents reports whether the API server cannot serve a watch with
// initial events: it is older than 1.32, or its etcd is older than 3.4.31, which
// cannot report progress (code 500 within the stream).
func refusesInitialEvents(err error) bool {
	return hasCode(err, http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusInternalServerError)
}

// listByWatch lists by a watch that begins with all Nodes. The API server sends
// them one by one, so neither side holds the whole list.
func listByWatch(ctx context.Context, c *client, each func(*node)) (subnet.Rev, error) {
	body, err := c.stream(ctx, request{method: http.MethodGet, path: "nodes", many: true, query: url.Values{
		"watch": {"1"}, "sendInitialEvents": {"true"}, "resourceVersionMatch": {"NotOlderThan"}, "allowWatchBookmarks": {"true"},
		"timeoutSeconds": {strconv.Itoa(watchSeconds())},
	}}, manyFactor*c.answer)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	for r := newEventReader(body); ; {
		e, err := r.next()
		switch {
		case err != nil:
			return 0, err
		case e.Type != eventBookmark:
			each(&e.Object)
		case e.Object.Metadata.Annotations[initialEventsEnd] == "true":
			return e.Object.rev()
		}
	}
}

// listByPages lists the newest state in pages. "resourceVersion=0" would give the
// whole list at once.
func listByPages(ctx context.Context, c *client, each func(*node)) (subnet.Rev, error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	for {
		body, err := c.stream(ctx, request{method: http.MethodGet, path: "nodes", many: true, query: query}, manyFactor*c.answer)
		if err != nil {
			return 0, err
		}
		object, err := io.ReadAll(body)
		var p page
		if err := errors.Join(err, body.Close(), p.decode(object)); err != nil {
			return 0, fmt.Errorf("read page of nodes: %w", err)
		}
		for _, n := range p.nodes {
			each(n)
		}
		if p.next == "" {
			return parseRev(p.resourceVersion)
		}
		query.Set("continue", p.next)
	}
}

// watchSeconds returns how long a watch may last: 5 to 10 minutes as client-go's,
// at random, so that the watches of all hosts do not end at once.
func watchSeconds() int {
	return int((5 * time.Minute).Seconds()) + rand.IntN(int((5 * time.Minute).Seconds()))
}

// Types of events.
const (
	eventDeleted  = "DELETED"
	eventBookmark = "BOOKMARK"
	eventError    = "ERROR"
)

// event is one change of a watch.
type event struct {
	Type   string
	Object node
}

// maxFrame bounds an event. etcd accepts objects of at most 1.5 MiB.
const maxFrame = 8 << 20

// eventReader reads the events of a watch. Each is a frame: its length in four bytes, and
// the message WatchEvent (k8s.io/apimachinery, pkg/util/framer).
type eventReader struct {
	from  *bufio.Reader
	frame []byte // used again for each event
}

func newEventReader(r io.Reader) *eventReader { return &eventReader{from: bufio.NewReader(r)} }

// next returns the next event. The error is io.EOF at the end, or the API server's.
func (r *eventReader) next() (e event, err error) {
	var length [4]byte
	if _, err := io.ReadFull(r.from, length[:]); err != nil {
		return e, err
	}
	size := binary.BigEndian.Uint32(length[:])
	if size > maxFrame {
		return e, fmt.Errorf("read event: %w", errEncoding)
	}
	r.frame = slices.Grow(r.frame[:0], int(size))[:size]
	if _, err := io.ReadFull(r.from, r.frame); errors.Is(err, io.EOF) {
		return e, fmt.Errorf("read event: %w", io.ErrUnexpectedEOF)
	} else if err != nil {
		return e, fmt.Errorf("read event: %w", err)
	}
	object, err := e.decode(r.frame)
	if err == nil && e.Type == eventError {
		refusal := new(apiError)
		if err = refusal.decode(object); err == nil {
			return e, refusal
		}
	}
	if err != nil {
		return e, fmt.Errorf("decode event: %w", err)
	}
	return e, nil
}
