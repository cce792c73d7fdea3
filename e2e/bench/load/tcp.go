package load

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/coreos/flannel/e2e/bench/machine"
)

// Transfer is the parameters of a TCP transfer.
type Transfer struct {
	// Streams is the number of parallel connections.
	Streams int
	// Reverse makes the data flow from the server to the client.
	Reverse bool
	// Congestion is the kernel's congestion control, e.g. "cubic".
	Congestion string
	// Seconds is the length of the transfer.
	Seconds int
}

// Throughput is the result of a transfer.
type Throughput struct {
	// Gbps is the received payload, in 10⁹ bits per second.
	Gbps float64
	// CPU is the cost, in seconds of a processor for each 10⁹ bits.
	CPU float64
	// Retransmits is the segments that the sender sent again, per second.
	Retransmits float64
}

// TCP measures a transfer between iperf3's client and server.
func TCP(ctx context.Context, from, to End, t Transfer) (Throughput, error) {
	s, err := serve(ctx, to, "tcp", iperfPort, "iperf3", "-s", "-1", "-B", to.Addr.String(), "-p", strconv.Itoa(iperfPort))
	if err != nil {
		return Throughput{}, err
	}
	defer s.close()
	args := []string{"-c", to.Addr.String(), "-B", from.Addr.String(), "-p", strconv.Itoa(iperfPort), "-J",
		"-t", strconv.Itoa(t.Seconds), "-P", strconv.Itoa(t.Streams), "-C", t.Congestion}
	if t.Reverse {
		args = append(args, "-R")
	}
	meter, err := machine.StartMeter()
	if err != nil {
		return Throughput{}, err
	}
	out, err := client(ctx, from, t.Seconds, "iperf3", args...)
	if err != nil {
		return Throughput{}, err
	}
	busy, _, err := meter.Busy()
	if err != nil {
		return Throughput{}, err
	}
	r, err := parseIperf3(out)
	if err != nil {
		return Throughput{}, err
	}
	return Throughput{Gbps: r.bps / 1e9, CPU: busy / (r.bits / 1e9), Retransmits: r.retransmits / float64(t.Seconds)}, nil
}

// transferred is iperf3's report: the receiver's bits and bits per second, and the
// sender's retransmitted segments.
type transferred struct{ bits, bps, retransmits float64 }

func parseIperf3(out []byte) (transferred, error) {
	var report struct {
		Error string
		End   struct {
			Sent     struct{ Retransmits float64 } `json:"sum_sent"`
			Received struct {
				Bytes float64
				BPS   float64 `json:"bits_per_second"`
			} `json:"sum_received"`
		}
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return transferred{}, fmt.Errorf("read report of iperf3: %w", err)
	}
	if report.Error != "" {
		return transferred{}, fmt.Errorf("run iperf3: %s", report.Error)
	}
	r := report.End.Received
	if r.Bytes == 0 || r.BPS == 0 {
		return transferred{}, fmt.Errorf("read report of iperf3: nothing was received")
	}
	return transferred{8 * r.Bytes, r.BPS, report.End.Sent.Retransmits}, nil
}
