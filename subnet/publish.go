package subnet

import (
	"context"
	"slices"
)

// Publish makes a what our lease tells the other hosts from now on, as after a
// change of key; Renew writes it as soon as the store takes it. The public IP
// and the NodeID stay: by them we know our own lease.
func (m *Manager) Publish(a Attrs) {
	m.mu.Lock()
	a.BackendData = slices.Clone(a.BackendData)
	m.published = &a
	if m.taken == nil {
		m.taken = make(chan struct{})
	}
	m.mu.Unlock()
	m.wakeRenew()
}

// AwaitPublished waits until the store has taken what Publish was given last
// (nil), or ctx ends (its error).
func (m *Manager) AwaitPublished(ctx context.Context) error {
	m.mu.Lock()
	taken := m.taken
	m.mu.Unlock()
	if taken == nil {
		return nil
	}
	select {
	case <-taken:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// current is what our lease shall tell, given what it was acquired with.
func (m *Manager) current(acquired Attrs) Attrs {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.latest(acquired)
}

// latest is current for those who hold mu.
func (m *Manager) latest(acquired Attrs) Attrs {
	if m.published == nil {
		return acquired
	}
	a := *m.published
	a.PublicIP = acquired.PublicIP
	a.NodeID, a.Hostname = acquired.NodeID, acquired.Hostname
	return a
}

// wakeRenew has Renew look at our key.
func (m *Manager) wakeRenew() {
	select {
	case m.ownChanged <- struct{}{}:
	default: // it has been told
	}
}
