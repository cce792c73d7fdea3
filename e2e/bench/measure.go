package main

import (
	"context"

	"github.com/coreos/flannel/e2e/bench/load"
	"github.com/coreos/flannel/e2e/bench/result"
)

// measure is one load, and the figures that it yields.
type measure struct {
	name    string
	figures []result.Figure
	// run returns the figures' values in order.
	run func(ctx context.Context, a, b load.End, o *options) ([]float64, error)
}

// is reports whether m is the same measure as other.
func (m measure) is(other measure) bool { return m.name == other.name }

// measures returns all measures, in the order of a trial.
func measures() []measure {
	return []measure{
		transfer("tcp1", "TCP, 1 stream, a→b", 1, false),
		transfer("tcp1r", "TCP, 1 stream, b→a", 1, true),
		transfer("tcp4", "TCP, 4 streams, a→b", 4, false),
		transfer("tcp4r", "TCP, 4 streams, b→a", 4, true),
		packets("udp64", "UDP, 64 B", 64),
		packets("udp1400", "UDP, 1400 B", 1400),
		requests("udp-rr", "UDP request-response", "udp"),
		requests("tcp-rr", "TCP request-response", "tcp"),
		connections("crr", "TCP connect-request-response"),
	}
}

func transfer(name, title string, streams int, reverse bool) measure {
	return measure{name, []result.Figure{
		{Name: name, Title: title, Unit: "Gb/s", Better: result.More},
		{Name: name + "-cpu", Title: title + ", cost", Unit: "CPU s/Gb", Better: result.Less, Detail: reverse},
		{Name: name + "-retrans", Title: title + ", retransmits", Unit: "segments/s", Better: result.Count},
	}, func(ctx context.Context, a, b load.End, o *options) ([]float64, error) {
		t, err := load.TCP(ctx, a, b, load.Transfer{Streams: streams, Reverse: reverse, Congestion: o.congestion, Seconds: o.seconds})
		return []float64{t.Gbps, t.CPU, t.Retransmits}, err
	}}
}

func packets(name, title string, size int) measure {
	return measure{name, []result.Figure{
		{Name: name, Title: title + ", delivered", Unit: "1000 packets/s", Better: result.More},
		{Name: name + "-loss", Title: title + ", loss", Unit: "%", Better: result.Share},
		{Name: name + "-cpu", Title: title + ", cost", Unit: "CPU µs/packet", Better: result.Less, Detail: size > 64},
	}, func(ctx context.Context, a, b load.End, o *options) ([]float64, error) {
		d, err := load.Packets(ctx, a, b, size, o.seconds)
		return []float64{d.Rate, d.Loss, d.CPU}, err
	}}
}

func requests(name, title, network string) measure {
	return measure{name, timeFigures(name, title), func(ctx context.Context, a, b load.End, o *options) ([]float64, error) {
		t, err := load.RequestResponse(ctx, a, b, network, o.seconds)
		return times(t), err
	}}
}

func connections(name, title string) measure {
	figures := append([]result.Figure{{Name: name, Title: title, Unit: "1000 connections/s", Better: result.More}}, timeFigures(name, title)...)
	figures[1].Detail = true // the median is the reverse of the rate
	return measure{name, figures, func(ctx context.Context, a, b load.End, o *options) ([]float64, error) {
		t, err := load.ConnectRequestResponse(ctx, a, b, o.seconds)
		return append([]float64{t.Rate / 1e3}, times(t)...), err
	}}
}

// timeFigures are the figures of times, in order.
func timeFigures(name, title string) []result.Figure {
	return []result.Figure{
		{Name: name + "-p50", Title: title + ", p50", Unit: "µs", Better: result.Less},
		{Name: name + "-p99", Title: title + ", p99", Unit: "µs", Better: result.Less},
		{Name: name + "-p999", Title: title + ", p99.9", Unit: "µs", Better: result.Less, Detail: true},
		{Name: name + "-cpu", Title: title + ", cost", Unit: "CPU µs/transaction", Better: result.Less},
	}
}

func times(t load.Transactions) []float64 { return []float64{t.P50, t.P99, t.P999, t.CPU} }
