package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	log "github.com/golang/glog"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// sayEvery is how often Wait repeats what it waits for, and looks again even
// though the kernel has announced no change.
const sayEvery = 30 * time.Second

// Find makes the choice on the host as it is now, and does not wait for what
// Wait waits for.
func Find(c Choice) (Uplink, error) {
	h, err := readHost()
	if err != nil {
		return Uplink{}, err
	}
	return c.pick(h, kernel{})
}

// Wait makes the choice, and where it is not possible yet, again on each change
// of interfaces, addresses and routes, until it is. It logs every 30 s what it
// waits for. It returns an error at once where waiting cannot help, and ctx's
// error, with what was still missing, when ctx ends.
func Wait(ctx context.Context, c Choice) (Uplink, error) {
	// Subscribe before the first look, so that no change falls between the two.
	changes, stop, err := subscribe()
	if err != nil {
		return Uplink{}, err
	}
	defer stop()

	tick := time.NewTicker(sayEvery)
	defer tick.Stop()
	var said string
	for {
		u, err := Find(c)
		if err == nil || !errors.Is(err, errNotReady) {
			return u, err
		}
		if missing := err.Error(); missing != said {
			log.Warningf("wait for interface reason=%q", missing)
			said = missing
		}
		select {
		case <-ctx.Done():
			return Uplink{}, fmt.Errorf("wait for interface: %w (%v)", ctx.Err(), err)
		case <-changes:
		case <-tick.C:
			said = ""
		}
	}
}

// subscribe opens a socket for the kernel's announcements about interfaces,
// IPv4 addresses and IPv4 routes. The channel holds one token after any number
// of them. stop closes the socket and waits for its reader.
func subscribe() (changes <-chan struct{}, stop func(), err error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE,
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE)
	if err != nil {
		return nil, nil, fmt.Errorf("subscribe to network changes: %w", err)
	}
	wake := make(chan struct{}, 1)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			_, _, err := s.Receive()
			select {
			case <-quit:
				return
			case wake <- struct{}{}:
			default:
			}
			// ENOBUFS says that announcements were lost, which is news too. After
			// any other failure the caller's own interval remains.
			if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN) {
				return
			}
		}
	}()
	return wake, func() { close(quit); s.Close(); <-done }, nil
}
