package etcdv3

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync/atomic"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"

	"github.com/coreos/flannel/subnet/etcd"
)

// errNewStream: the client would resume the watch on another stream by itself. The
// store may have been restored in between.
var errNewStream = errors.New("watch stream ended")

// headed is an answer of etcd's.
type headed interface{ GetHeader() *pb.ResponseHeader }

// observe gives the header of an answer to the history.
func observe(h *etcd.History, answer any, sent etcd.Mark) {
	a, ok := answer.(headed)
	if !ok || a.GetHeader() == nil {
		return
	}
	header := a.GetHeader()
	h.Observe(etcd.Answer{Cluster: hex(header.ClusterId), Member: hex(header.MemberId),
		Term: header.RaftTerm, Rev: header.Revision}, sent)
}

// hex returns an id as text; "" for 0, with which etcd's gRPC proxy confirms a watch.
func hex(id uint64) string {
	if id == 0 {
		return ""
	}
	return strconv.FormatUint(id, 16)
}

// observeCalls observes the answer to each call.
func observeCalls(h *etcd.History) grpc.UnaryClientInterceptor {
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, invoke grpc.UnaryInvoker, opts ...grpc.CallOption) error {
		sent := h.Mark()
		err := invoke(ctx, method, req, reply, cc, opts...)
		if err == nil {
			observe(h, reply, sent)
		}
		return err
	}
}

// observeStreams observes the answers on each stream, heartbeats included.
func observeStreams(h *etcd.History) grpc.StreamClientInterceptor {
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, open grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		w, _ := ctx.Value(watchKey{}).(*watchStream)
		if w != nil && w.opened.Load() {
			w.cancel(fmt.Errorf("%w: %w", errNewStream, *w.failure.Load()))
			return nil, context.Canceled
		}
		s, err := open(ctx, desc, cc, method, opts...)
		if err != nil {
			return nil, err
		}
		if w != nil {
			w.failure.Store(&io.EOF)
			w.opened.Store(true)
		}
		observed := &observedStream{ClientStream: s, history: h, watch: w}
		observed.note()
		return observed, nil
	}
}

// watchKey is the context key of a Watch's *watchStream.
type watchKey struct{}

// watchStream ends a Watch when its client opens a second stream.
type watchStream struct {
	opened  atomic.Bool
	failure atomic.Pointer[error] // how the stream ended
	cancel  context.CancelCauseFunc
}

// observedStream is a stream of a watch or of keep-alives.
type observedStream struct {
	grpc.ClientStream
	history *etcd.History
	watch   *watchStream              // nil for keep-alives
	sent    atomic.Pointer[etcd.Mark] // of the last request for an answer
}

func (s *observedStream) note() {
	m := s.history.Mark()
	s.sent.Store(&m)
}

// SendMsg implements grpc.ClientStream.
func (s *observedStream) SendMsg(m any) error {
	if w, ok := m.(*pb.WatchRequest); !ok || w.GetCreateRequest() != nil {
		s.note()
	}
	return s.ClientStream.SendMsg(m)
}

// RecvMsg implements grpc.ClientStream. Of a watch's answers, only one to a request
// has the member's present revision: an event's may be older.
func (s *observedStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err != nil {
		if s.watch != nil {
			s.watch.failure.Store(&err)
		}
		return err
	}
	sent := *s.sent.Load()
	if w, ok := m.(*pb.WatchResponse); ok && !w.Created && w.Header != nil {
		h := w.Header
		observe(s.history, &pb.WatchResponse{Header: &pb.ResponseHeader{ClusterId: h.ClusterId, MemberId: h.MemberId, RaftTerm: h.RaftTerm}}, sent)
		return nil
	}
	observe(s.history, m, sent)
	return nil
}
