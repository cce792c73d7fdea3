package load

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/e2e/bench/machine"
)

const (
	// messageSize is the size of request and response, in bytes.
	messageSize = 64
	// minSize has room for a request's number, in bytes.
	minSize = 8
	// warmUp precedes the measurement of transactions.
	warmUp = 200 * time.Millisecond
	// resendAfter is how long a UDP request waits for its response. The time of the
	// transaction includes it.
	resendAfter = 200 * time.Millisecond
	// tcpTimeout ends a client whose server does not answer.
	tcpTimeout = 5 * time.Second
	// maxResends ends a client of UDP whose server does not answer.
	maxResends = 25
	// transactionsPerSecond is the room for durations that is made beforehand.
	transactionsPerSecond = 200_000
)

// loadClient is the load program's client.
type loadClient struct {
	kind    kind
	from    netip.Addr
	to      netip.AddrPort
	message []byte
	length  time.Duration

	fd     int
	number uint64 // of the last UDP request
}

// report is what the client prints, as JSON.
type report struct {
	// Count is the number of transactions or sent packets, Seconds the time.
	Count   int
	Seconds float64
	// Busy is the busy time of all processors, in seconds.
	Busy float64
	// Percentiles of a transaction's time, in microseconds.
	P50, P99, P999 float64
}

func (c *loadClient) run() (*report, error) {
	limit := tcpTimeout
	if c.kind == udpRR {
		limit = resendAfter
	}
	var err error
	var once func() error
	switch c.kind {
	case udpRR:
		once = c.exchangeDatagrams
	case tcpRR:
		once = c.exchange
	case tcpCRR:
		return c.transact(c.connectAndExchange)
	case udpSend:
	default:
		return nil, fmt.Errorf("no load is named %q", c.kind)
	}
	if c.fd, err = dial(c.kind, c.from, c.to, limit); err != nil {
		return nil, err
	}
	defer unix.Close(c.fd)
	if once == nil {
		return c.send()
	}
	return c.transact(once)
}

// transact repeats a transaction, and measures it.
func (c *loadClient) transact(once func() error) (*report, error) {
	for end := time.Now().Add(warmUp); time.Now().Before(end); {
		if err := once(); err != nil {
			return nil, err
		}
	}
	times := make([]time.Duration, 0, int(c.length.Seconds())*transactionsPerSecond)
	meter, err := machine.StartMeter()
	if err != nil {
		return nil, err
	}
	began := time.Now()
	for last := began; last.Sub(began) < c.length; {
		if err := once(); err != nil {
			return nil, err
		}
		now := time.Now()
		times = append(times, now.Sub(last))
		last = now
	}
	r := &report{Count: len(times), Seconds: time.Since(began).Seconds()}
	if r.Busy, _, err = meter.Busy(); err != nil {
		return nil, err
	}
	slices.Sort(times)
	r.P50, r.P99, r.P999 = percentile(times, 0.5), percentile(times, 0.99), percentile(times, 0.999)
	return r, nil
}

// percentile returns the smallest time that a share of the sorted times does not
// exceed, in microseconds.
func percentile(sorted []time.Duration, share float64) float64 {
	i := int(share*float64(len(sorted))+0.999999) - 1
	return float64(sorted[min(max(i, 0), len(sorted)-1)].Nanoseconds()) / 1e3
}

// exchange sends a request over the connection and waits for the response.
func (c *loadClient) exchange() error {
	if err := write(c.fd, c.message); err != nil {
		return fmt.Errorf("send request: %w", err)
	}
	if err := readFull(c.fd, c.message); err != nil {
		return fmt.Errorf("receive response: %w", err)
	}
	return nil
}

// connectAndExchange does the same over a new connection, which the server closes.
func (c *loadClient) connectAndExchange() (err error) {
	if c.fd, err = dial(c.kind, c.from, c.to, tcpTimeout); err != nil {
		return err
	}
	defer unix.Close(c.fd)
	if err := c.exchange(); err != nil {
		return err
	}
	if _, err := read(c.fd, c.message); !errors.Is(err, io.EOF) {
		return fmt.Errorf("await end of connection: %w", err)
	}
	return nil
}

// exchangeDatagrams sends a numbered request until its response comes.
func (c *loadClient) exchangeDatagrams() error {
	c.number++
	for range maxResends {
		binary.BigEndian.PutUint64(c.message, c.number)
		if err := write(c.fd, c.message); err != nil {
			return fmt.Errorf("send request: %w", err)
		}
		for {
			_, err := read(c.fd, c.message)
			if errors.Is(err, unix.EAGAIN) {
				break // send again
			}
			if err != nil {
				return fmt.Errorf("receive response: %w", err)
			}
			if binary.BigEndian.Uint64(c.message) == c.number {
				return nil
			}
		}
	}
	return fmt.Errorf("receive response: none came to %d requests", maxResends)
}

// send sends packets as fast as possible, with a system call each.
func (c *loadClient) send() (*report, error) {
	meter, err := machine.StartMeter()
	if err != nil {
		return nil, err
	}
	r := &report{}
	began := time.Now()
	for now := began; now.Sub(began) < c.length; now = time.Now() {
		err := write(c.fd, c.message)
		switch {
		case err == nil:
			r.Count++
		// ENOBUFS: a full queue has dropped it. ECONNREFUSED is about an earlier one.
		case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED):
			return nil, fmt.Errorf("send packet: %w", err)
		}
	}
	r.Seconds = time.Since(began).Seconds()
	r.Busy, _, err = meter.Busy()
	return r, err
}
