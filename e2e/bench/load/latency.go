package load

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

const (
	// messageSize is that of a request and of its response, in bytes.
	messageSize = 64
	// trimmed is how much longer than asked for sockperf must run, in seconds:
	// it leaves the first 400 ms out, and of one second leaves nothing.
	trimmed = 1
)

// RoundTrip is how long a response takes to come, in microseconds.
type RoundTrip struct{ P50, P99 float64 }

// PingPong sends small requests, each when the response to the one before is
// there, over "udp" or "tcp".
func PingPong(ctx context.Context, from, to End, network string, seconds int) (RoundTrip, error) {
	seconds += trimmed
	server := []string{"server", "-i", to.Addr.String(), "-p", strconv.Itoa(sockperfPort)}
	// Half of what it would print otherwise is the "latency": rtt says what was
	// measured. The clock is the kernel's, since a virtual TSC may be of a rate
	// that /proc/cpuinfo does not tell.
	pinger := []string{"ping-pong", "-i", to.Addr.String(), "-p", strconv.Itoa(sockperfPort),
		"--client_ip", from.Addr.String(), "-m", strconv.Itoa(messageSize), "-t", strconv.Itoa(seconds),
		"--full-rtt", "--no-rdtsc"}
	if network == "tcp" {
		server, pinger = append(server, "--tcp"), append(pinger, "--tcp")
	}
	s, err := serve(ctx, to, network, sockperfPort, "sockperf", server...)
	if err != nil {
		return RoundTrip{}, err
	}
	defer s.close()
	out, err := client(ctx, from, seconds, "sockperf", pinger...)
	if err != nil {
		return RoundTrip{}, err
	}
	return parsePingPong(out)
}

var percentile = regexp.MustCompile(`percentile (50|99)\.000 = *([0-9.]+)`)

func parsePingPong(out []byte) (RoundTrip, error) {
	seen := make(map[string]float64)
	for _, m := range percentile.FindAllSubmatch(out, -1) {
		v, err := strconv.ParseFloat(string(m[2]), 64)
		if err != nil {
			return RoundTrip{}, fmt.Errorf("read report of sockperf: %w", err)
		}
		seen[string(m[1])] = v
	}
	r := RoundTrip{P50: seen["50"], P99: seen["99"]}
	if r.P50 == 0 || r.P99 == 0 {
		return RoundTrip{}, fmt.Errorf("read report of sockperf: no percentiles in %q", out)
	}
	return r, nil
}
