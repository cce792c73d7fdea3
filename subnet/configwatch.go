package subnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
	"github.com/coreos/flannel/pkg/clock"
)

// configInterval is how often the configuration is read, on the ticks of pkg/clock.
// With 10,000 hosts that is 170 small reads a second.
const configInterval = time.Minute

// WaitConfig returns the network configuration. It waits for the store and for
// the configuration as long as ctx allows. A configuration that breaks a rule is
// an error at once. report receives the outcome of each attempt. Errors: a
// *ConfigError or a JSON error, or ctx's.
func WaitConfig(ctx context.Context, s Source, report func(error)) (*Config, error) {
	data, err := backoff.Retry(ctx, "wait for network configuration", func() ([]byte, error) {
		data, err := s.Config(ctx)
		report(err)
		return data, err
	})
	if err != nil {
		return nil, fmt.Errorf("wait for network configuration: %w", err)
	}
	return ParseConfig(data)
}

// ConfigChangedError is a change of the configuration that takes effect while the
// network runs.
type ConfigChangedError struct {
	To *Config
	// Differences are the changed keys.
	Differences []ConfigDifference
}

// Error returns the changed keys.
func (e *ConfigChangedError) Error() string {
	var changed []string
	for _, d := range e.Differences {
		changed = append(changed, d.String())
	}
	return "the network configuration is another: " + strings.Join(changed, "; ")
}

// reactionSpread, multiplied by the number of hosts, bounds the random delay of a
// reaction to a change: each host reads all leases then.
const reactionSpread = 5 * time.Millisecond

// WatchConfig notices a change of the configuration in use within a minute, at once
// if the store announces it, until ctx ends (nil). SubnetMin and SubnetMax apply to
// leases of the future, so a change of them needs no action. A family that is turned
// on or off ends WatchConfig with a *ConfigChangedError. A change of anything else
// decides how hosts reach each other; it is refused as a whole and takes effect at
// the next start. Status holds the reason.
func (m *Manager) WatchConfig(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	announced := make(chan struct{}, 1)
	var notifier sync.WaitGroup
	defer notifier.Wait()
	defer cancel()
	notifier.Go(func() { m.followConfig(ctx, announced) })
	var seen []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-announced:
		case <-time.After(clock.UntilTick(configInterval)):
		}
		data, err := m.source.Config(ctx)
		if m.record(err) == nil && bytes.Equal(data, seen) {
			continue
		}
		change, err := m.compareConfig(data, err)
		if err != nil {
			continue
		}
		if seen = data; change == nil {
			continue
		}
		wait := time.Duration(rand.Int64N(int64(reactionSpread)*int64(m.Status().Peers+1) + 1))
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
			return change
		}
	}
}

// followConfig sets announced after each change that the store announces, until ctx
// ends.
func (m *Manager) followConfig(ctx context.Context, announced chan<- struct{}) {
	source, ok := m.source.(ConfigNotifier)
	if !ok {
		return
	}
	pauses := backoff.New()
	for ctx.Err() == nil {
		err := source.NotifyConfig(ctx, func() {
			pauses.Reset()
			select {
			case announced <- struct{}{}:
			default: // one is pending
			}
		})
		log.V(1).Infof("watch network configuration: %v", err)
		select {
		case <-ctx.Done():
		case <-time.After(pauses.NextBackOff()):
		}
	}
}

// checkAdoptedConfig compares a configuration of the last run with the store's,
// before the first write that depends on it. It reports a difference; the write
// follows anyway.
func (m *Manager) checkAdoptedConfig(ctx context.Context) error {
	if !m.configUnread {
		return nil
	}
	data, err := m.source.Config(ctx)
	if _, err := m.compareConfig(data, m.record(err)); err != nil { // WatchConfig acts on a change
		return fmt.Errorf("read configuration: %w", err)
	}
	m.configUnread = false
	return nil
}

// compareConfig records whether the store's answer, data or err, allows the
// configuration in use. It returns a change that takes effect now; nil for none. It
// returns err if the store did not answer.
func (m *Manager) compareConfig(data []byte, err error) (*ConfigChangedError, error) {
	switch {
	case errors.Is(err, ErrNoConfig):
		m.setConfigRefused("the configuration is gone from the store")
		return nil, nil
	case err != nil:
		return nil, err
	}
	change, refused := m.judgeConfig(data)
	m.setConfigRefused(refused)
	return change, nil
}

// judgeConfig returns the change to data's configuration if it takes effect now, or
// why it cannot; nothing if nothing has to.
func (m *Manager) judgeConfig(data []byte) (change *ConfigChangedError, refused string) {
	c, err := ParseConfig(data)
	if err != nil {
		return nil, err.Error()
	}
	var later []string
	var now []ConfigDifference
	for _, d := range m.config.Diff(c) {
		switch d.Key {
		case ipv4Keys.first, ipv4Keys.last, ipv6Keys.first, ipv6Keys.last:
		case "Backend":
			later = append(later, "Backend has other options")
		case ipv4Keys.network, ipv6Keys.network:
			if d.Before == "" || d.After == "" { // promise: family-is-turned-on-at-once
				now = append(now, d)
				continue
			}
			fallthrough
		default:
			later = append(later, fmt.Sprintf("%s is %s, was %s", d.Key, d.After, d.Before))
		}
	}
	switch {
	case later != nil:
		for _, d := range now {
			later = append(later, fmt.Sprintf("%s is %q, was %q", d.Key, d.After, d.Before))
		}
		return nil, "takes effect at the next start: " + strings.Join(later, "; ")
	case now != nil:
		return &ConfigChangedError{c, now}, ""
	}
	return nil, ""
}

// setConfigRefused records why a configuration is refused; "" for none.
func (m *Manager) setConfigRefused(reason string) {
	m.mu.Lock()
	before := m.status.ConfigRefused
	m.status.ConfigRefused = reason
	m.mu.Unlock()
	switch {
	case reason == before:
	case reason == "":
		log.Infof("network configuration is in force again")
	default:
		log.Errorf("refuse changed network configuration, go on with that of the start reason=%q", reason)
	}
}
