package subnet

import (
	"sync"
	"sync/atomic"

	log "github.com/golang/glog"
)

// maxBadKeys bounds the keys that BadData remembers; further ones are only
// counted.
const maxBadKeys = 1024

// BadData counts and logs the store's keys that are left out, because they do
// not parse or contradict others. A key is logged once for each new fault and
// counted each time. The zero value is ready; it is safe for concurrent use.
type BadData struct {
	count atomic.Uint64

	mu     sync.Mutex        // guards what follows
	logged map[string]string // key → the fault last logged for it
}

// Skip records that key was left out because of err.
func (b *BadData) Skip(key string, err error) {
	b.count.Add(1)
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.logged == nil {
		b.logged = make(map[string]string)
	}
	fault := err.Error()
	before, known := b.logged[key]
	if before == fault || !known && len(b.logged) >= maxBadKeys {
		return
	}
	b.logged[key] = fault
	log.Errorf("skip key=%q reason=%q; all other leases stay in force", key, fault)
}

// Count returns how many times a key was left out.
func (b *BadData) Count() uint64 { return b.count.Load() }
