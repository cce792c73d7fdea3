package load

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
)

const (
	// messageSize is the size of request and response, in bytes.
	messageSize = 64
	// trimmed is how much longer sockperf must run, in seconds: it omits the first
	// 400 ms, and a run of 1 s has no result.
	trimmed = 1
)

// RoundTrip is the time from request to response, in microseconds.
type RoundTrip struct{ P50, P99 float64 }

// PingPong sends small requests over "udp" or "tcp", each after the response to the
// last one.
func PingPong(ctx context.Context, from, to End, network string, seconds int) (RoundTrip, error) {
	seconds += trimmed
	server := []string{"server", "-i", to.Addr.String(), "-p", strconv.Itoa(sockperfPort)}
	// sockperf prints half the round trip without --full-rtt. It uses the kernel's
	// clock, as /proc/cpuinfo may have the wrong rate of a virtual TSC.
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
