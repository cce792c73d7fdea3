package subnet

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
)

// configEvery is how often the configuration is read again, less up to a tenth
// at random: for 10,000 hosts that is 180 small reads a second.
const configEvery = time.Minute

// WaitConfig returns the network configuration, waiting for the store and for
// the configuration as long as it takes. A configuration that breaks a rule is
// an error at once: it does not mend itself. Errors: a *ConfigError or a JSON
// error, or ctx's.
func WaitConfig(ctx context.Context, reg Registry) (*Config, error) {
	data, err := backoff.Retry(ctx, "wait for network configuration", func() ([]byte, error) {
		return reg.Config(ctx)
	})
	if err != nil {
		return nil, fmt.Errorf("wait for network configuration: %w", err)
	}
	return ParseConfig(data)
}

// WatchConfig notices, within a minute, a change of the configuration that we
// work by, until ctx ends (nil). SubnetMin and SubnetMax concern leases that
// are yet to be taken, so that there is nothing to do for ours. Everything else
// decides how hosts reach each other, and is refused as a whole: it takes
// effect at the next start. Status says what is refused and why.
func (m *Manager) WatchConfig(ctx context.Context) error {
	var seen []byte
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(configEvery - rand.N(configEvery/10)):
		}
		data, err := m.reg.Config(ctx)
		if m.answered(err) == nil && bytes.Equal(data, seen) {
			continue
		}
		if m.judgeConfig(data, err) == nil {
			seen = data
		}
	}
}

// judgeConfig judges what the store says of the configuration. It returns err
// where the store says nothing: its absence is no news.
func (m *Manager) judgeConfig(data []byte, err error) error {
	switch {
	case errors.Is(err, ErrNoConfig):
		m.refuseConfig("the configuration is gone from the store")
	case err != nil:
		return err
	default:
		m.refuseConfig(m.compareConfig(data))
	}
	return nil
}

// readAdopted compares a remembered configuration with the store's, before the
// first write by it.
func (m *Manager) readAdopted(ctx context.Context) error {
	if !m.unread {
		return nil
	}
	data, err := m.reg.Config(ctx)
	if err := m.judgeConfig(data, m.answered(err)); err != nil {
		return fmt.Errorf("read configuration: %w", err)
	}
	m.unread = false
	return nil
}

// compareConfig says why data cannot be put to work; "" where nothing is to do.
func (m *Manager) compareConfig(data []byte) string {
	c, err := ParseConfig(data)
	if err != nil {
		return err.Error()
	}
	var changed []string
	for _, part := range []struct {
		key      string
		was, now any
	}{
		{"Network", m.config.Network, c.Network},
		{"SubnetLen", m.config.SubnetLen, c.SubnetLen},
		{"Backend.Type", m.config.BackendType, c.BackendType},
		{"Backend", compact(m.config.Backend), compact(c.Backend)},
		{"IPv6Network", m.config.IPv6Network, c.IPv6Network},
	} {
		switch {
		case part.was == part.now:
		case part.key == "Backend": // it may hold a secret
			changed = append(changed, "Backend has other options")
		default:
			changed = append(changed, fmt.Sprintf("%s is %v, was %v", part.key, part.now, part.was))
		}
	}
	if changed == nil {
		return ""
	}
	return "takes effect at the next start: " + strings.Join(changed, "; ")
}

// compact is raw without what has no meaning; it parsed before.
func compact(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Compact(&b, raw) != nil {
		return string(raw)
	}
	return b.String()
}

// refuseConfig records why a configuration is refused; "" for none.
func (m *Manager) refuseConfig(reason string) {
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
