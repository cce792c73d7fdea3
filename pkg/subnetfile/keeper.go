package subnetfile

import (
	"context"
	"fmt"
	"sync"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/backoff"
)

// Keeper keeps the file at a path as it has to be. A file that cannot be
// written ends no daemon that has been at work: the old file stays, and Run
// writes the new one as soon as that is possible.
type Keeper struct {
	path string

	// failed holds a token if Run has something to do.
	failed chan struct{}
	// writing is held while the file is written, which a hung disk makes long.
	writing sync.Mutex

	mu      sync.Mutex // guards what follows; nobody waits with it
	want    Env
	put     bool  // the file has been right once
	problem error // why the file is not as it has to be
}

// NewKeeper returns a Keeper that has written nothing yet.
func NewKeeper(path string) *Keeper {
	return &Keeper{path: path, failed: make(chan struct{}, 1)}
}

// Put makes the file hold e. A file that holds e already is not written: the
// folder may be full or read-only. Put returns an error only if the file has
// never been right: nothing else tells containers what to use. After that,
// Problem returns the error.
func (k *Keeper) Put(e Env) error {
	k.mu.Lock()
	k.want = e
	k.mu.Unlock()
	err := k.settle()
	if err == nil {
		return nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !k.put {
		return err
	}
	log.Warningf("go on with the old subnet file, and try again: %v", err)
	select {
	case k.failed <- struct{}{}:
	default:
	}
	return nil
}

// settle makes the file what Put was called with last.
func (k *Keeper) settle() error {
	k.writing.Lock()
	defer k.writing.Unlock()
	k.mu.Lock()
	want := k.want
	k.mu.Unlock()
	err := k.write(want)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.problem, k.put = err, k.put || err == nil
	return err
}

func (k *Keeper) write(e Env) error {
	if Check(k.path) == nil {
		if now, err := Read(k.path); err == nil && now == e {
			return nil
		}
	}
	return Write(k.path, e)
}

// Problem returns why the file is not as it has to be; nil if it is.
func (k *Keeper) Problem() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.problem
}

// Run writes the file when Put could not, and returns nil when ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.failed:
		}
		// Only the end of ctx ends this with an error.
		_, err := backoff.Retry(ctx, fmt.Sprintf("write %s again", k.path), func() (struct{}, error) {
			return struct{}{}, k.settle()
		})
		if err == nil {
			log.Infof("wrote subnet file path=%s", k.path)
		}
	}
}
