package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
)

// Transactions is the result of requests that each wait for the last one's
// response.
type Transactions struct {
	// Rate is the transactions per second.
	Rate float64
	// Percentiles of a transaction's time, in microseconds.
	P50, P99, P999 float64
	// CPU is the cost, in microseconds of a processor for each transaction.
	CPU float64
}

// RequestResponse exchanges 64-byte messages over "udp" or one "tcp" connection.
func RequestResponse(ctx context.Context, from, to End, network string, seconds int) (Transactions, error) {
	return transactions(ctx, from, to, kind(network+"-rr"), seconds)
}

// ConnectRequestResponse opens a TCP connection for each exchange of 64-byte
// messages. The server closes it.
func ConnectRequestResponse(ctx context.Context, from, to End, seconds int) (Transactions, error) {
	return transactions(ctx, from, to, tcpCRR, seconds)
}

func transactions(ctx context.Context, from, to End, k kind, seconds int) (Transactions, error) {
	s, err := serve(ctx, to, k.network(), loadPort, executable, serverArgs(k, netip.AddrPortFrom(to.Addr, loadPort))...)
	if err != nil {
		return Transactions{}, err
	}
	defer s.close()
	r, err := runClient(ctx, from, to, k, messageSize, seconds)
	if err != nil {
		return Transactions{}, err
	}
	n := float64(r.Count)
	return Transactions{Rate: n / r.Seconds, P50: r.P50, P99: r.P99, P999: r.P999, CPU: r.Busy * 1e6 / n}, nil
}

// runClient runs the load program's client.
func runClient(ctx context.Context, from, to End, k kind, size, seconds int) (*report, error) {
	out, err := client(ctx, from, seconds, executable, clientArgs(k, from.Addr, netip.AddrPortFrom(to.Addr, loadPort), size, seconds)...)
	if err != nil {
		return nil, err
	}
	return parseReport(out)
}

func parseReport(out []byte) (*report, error) {
	r := new(report)
	if err := json.Unmarshal(out, r); err != nil {
		return nil, fmt.Errorf("read report of load program: %w", err)
	}
	if r.Count == 0 || r.Seconds == 0 {
		return nil, errors.New("read report of load program: nothing was sent")
	}
	return r, nil
}
