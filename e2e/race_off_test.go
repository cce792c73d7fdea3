//go:build !race

package e2e

// raceEnabled: the tests run under the race detector, and so shall the daemon.
const raceEnabled = false
