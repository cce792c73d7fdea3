package cli

import (
	"context"
	"flag"
	"fmt"
	"time"

	"github.com/coreos/flannel/subnet/store"
)

// storeSide is the store as a command asks it: once, and not for ever.
type storeSide struct {
	flags   store.Flags
	timeout time.Duration
}

func (s *storeSide) register(fs *flag.FlagSet) {
	s.flags.Register(fs)
	fs.DurationVar(&s.timeout, "timeout", 10*time.Second, "`time` to wait for etcd")
}

// do runs f with the store. publish, if not nil, is the configuration to write
// where there is none.
func (s *storeSide) do(ctx context.Context, publish []byte, f func(context.Context, store.Store) error) (err error) {
	if s.timeout <= 0 {
		return fmt.Errorf("-timeout %v leaves no time to ask etcd; say 10s, for example", s.timeout)
	}
	if err := s.flags.Complete(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	c := s.flags.Config
	c.Publish = publish
	st, err := store.Open(ctx, c)
	if err != nil {
		return fmt.Errorf("open the store (-timeout %v): %w", s.timeout, err)
	}
	err = f(ctx, st)
	if closed := st.Close(); err == nil {
		err = closed
	}
	return err
}
