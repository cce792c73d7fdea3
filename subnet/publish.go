package subnet

import (
	"context"
	"slices"
)

// Publish sets the attributes that our lease publishes from now on, as after a
// change of key. Renew writes them as soon as the store accepts them. The public IPs,
// NodeID, Hostname and OffloadPort keep their values: they are not the network's.
func (m *Manager) Publish(a Attrs) {
	m.mu.Lock()
	a.BackendData, a.BackendV6Data = slices.Clone(a.BackendData), slices.Clone(a.BackendV6Data)
	m.published = &a
	if m.stored == nil {
		m.stored = make(chan struct{})
	}
	m.mu.Unlock()
	m.wakeRenew()
}

// AwaitPublished waits until the store has the attributes of the last Publish
// (nil), or ctx ends (its error).
func (m *Manager) AwaitPublished(ctx context.Context) error {
	m.mu.Lock()
	stored := m.stored
	m.mu.Unlock()
	if stored == nil {
		return nil
	}
	select {
	case <-stored:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// toPublish returns the attributes to publish for a lease acquired with these.
func (m *Manager) toPublish(acquired Attrs) Attrs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.toPublishLocked(acquired)
}

// toPublishLocked is toPublish for callers that hold mu.
func (m *Manager) toPublishLocked(acquired Attrs) Attrs {
	if m.published == nil {
		return acquired
	}
	a := *m.published
	a.PublicIP, a.PublicIPv6 = acquired.PublicIP, acquired.PublicIPv6
	a.NodeID, a.Hostname, a.OffloadPort = acquired.NodeID, acquired.Hostname, acquired.OffloadPort
	return a
}

// wakeRenew makes Renew check our key now.
func (m *Manager) wakeRenew() {
	select {
	case m.ownChanged <- struct{}{}:
	default: // a wake-up is pending
	}
}
