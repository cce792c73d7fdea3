package subnet

import "slices"

// Publish makes a what our lease tells the other hosts from now on, as after a
// change of key; Renew writes it as soon as the store takes it. The public IP
// and the NodeID stay: by them we know our own lease.
func (m *Manager) Publish(a Attrs) {
	m.mu.Lock()
	a.BackendData = slices.Clone(a.BackendData)
	m.published = &a
	m.mu.Unlock()
	m.wakeRenew()
}

// current is what our lease shall tell, given what it was acquired with.
func (m *Manager) current(acquired Attrs) Attrs {
	m.mu.Lock()
	defer m.mu.Unlock()
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
