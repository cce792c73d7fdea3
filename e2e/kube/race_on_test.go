//go:build race

package kube

// raceEnabled: the tests run under the race detector, and so shall the daemon.
const raceEnabled = true
