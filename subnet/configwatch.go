package subnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
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
// an error at once. Errors: a *ConfigError or a JSON error, or ctx's.
func WaitConfig(ctx context.Context, s Source) (*Config, error) {
	data, err := backoff.Retry(ctx, "wait for network configuration", func() ([]byte, error) {
		return s.Config(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("wait for network configuration: %w", err)
	}
	return ParseConfig(data)
}

// WatchConfig notices a change of the configuration in use within a minute,
// until ctx ends (nil). SubnetMin and SubnetMax apply to leases of the future,
// so a change of them needs no action. A change of anything else decides how
// hosts reach each other; it is refused as a whole and takes effect at the next
// start. Status holds the reason.
func (m *Manager) WatchConfig(ctx context.Context) error {
	var seen []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(clock.UntilTick(configInterval)):
		}
		data, err := m.source.Config(ctx)
		if m.record(err) == nil && bytes.Equal(data, seen) {
			continue
		}
		if m.compareConfig(data, err) == nil {
			seen = data
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
	if err := m.compareConfig(data, m.record(err)); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	m.configUnread = false
	return nil
}

// compareConfig records whether the store's answer, data or err, allows the
// configuration in use. It returns err if the store did not answer.
func (m *Manager) compareConfig(data []byte, err error) error {
	switch {
	case errors.Is(err, ErrNoConfig):
		m.setConfigRefused("the configuration is gone from the store")
	case err != nil:
		return err
	default:
		m.setConfigRefused(m.refusal(data))
	}
	return nil
}

// refusal returns why data cannot take effect now; "" if nothing has to.
func (m *Manager) refusal(data []byte) string {
	c, err := ParseConfig(data)
	if err != nil {
		return err.Error()
	}
	var changed []string
	for _, d := range m.config.Diff(c) {
		switch d.Key {
		case "SubnetMin", "SubnetMax":
		case "Backend":
			changed = append(changed, "Backend has other options")
		default:
			changed = append(changed, fmt.Sprintf("%s is %s, was %s", d.Key, d.After, d.Before))
		}
	}
	if changed == nil {
		return ""
	}
	return "takes effect at the next start: " + strings.Join(changed, "; ")
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
