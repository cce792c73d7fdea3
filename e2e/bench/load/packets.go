package load

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

// Delivery is the result of sending packets at the highest rate.
type Delivery struct {
	// Rate is the received packets, in thousands a second. Loss is the lost ones, in
	// percent of the sent ones.
	Rate, Loss float64
	// CPU is the cost, in microseconds of a processor for each received packet.
	CPU float64
}

// Packets sends UDP packets with size bytes of payload as fast as possible, with a
// system call each.
func Packets(ctx context.Context, from, to End, size, seconds int) (Delivery, error) {
	sink, err := openSink(ctx, to)
	if err != nil {
		return Delivery{}, err
	}
	defer sink.close()
	out, err := client(ctx, from, seconds, "sockperf", "throughput", "-i", to.Addr.String(), "-p", strconv.Itoa(sockperfPort),
		"--client_ip", from.Addr.String(), "-m", strconv.Itoa(size), "-t", strconv.Itoa(seconds),
		"--mps=max", "--dontwarmup", "--no-rdtsc")
	if err != nil {
		return Delivery{}, err
	}
	busy, err := sink.busy()
	if err != nil {
		return Delivery{}, err
	}
	sent, elapsed, err := parseThroughput(out)
	if err != nil {
		return Delivery{}, err
	}
	received, err := sink.drain(ctx)
	if err != nil {
		return Delivery{}, err
	}
	return delivery(float64(received), sent, elapsed, busy), nil
}

func delivery(received, sent, elapsed, busy float64) Delivery {
	return Delivery{
		Rate: received / elapsed / 1e3,
		Loss: max(0, 100*(1-received/sent)),
		CPU:  busy * 1e6 / received,
	}
}

var throughput = regexp.MustCompile(`Total of ([0-9]+) messages sent in ([0-9.]+) sec`)

// parseThroughput returns the number of sent packets and the time.
func parseThroughput(out []byte) (sent, seconds float64, err error) {
	m := throughput.FindSubmatch(out)
	if m == nil {
		return 0, 0, fmt.Errorf("read report of sockperf: no total in %q", out)
	}
	if sent, err = strconv.ParseFloat(string(m[1]), 64); err == nil {
		seconds, err = strconv.ParseFloat(string(m[2]), 64)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("read report of sockperf: %w", err)
	}
	if sent == 0 || seconds == 0 {
		return 0, 0, fmt.Errorf("read report of sockperf: %s", m[0])
	}
	return sent, seconds, nil
}
