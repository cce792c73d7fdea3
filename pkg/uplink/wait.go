package uplink

import (
	"context"
	"errors"
	"fmt"
	"time"

	log "github.com/golang/glog"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/pkg/reconcile"
)

const (
	// logEvery is how often Wait logs again what is missing. Wait and Follow look
	// at the host at least that often.
	logEvery = 30 * time.Second
	// lookInterval and lookBurst bound the cost while a backend adds 10,000
	// routes: the kernel announces each.
	lookInterval = 100 * time.Millisecond
	lookBurst    = 5
)

// Find makes the choice on the host as it is now. It does not wait.
func Find(c Choice) (Uplink, error) {
	h, err := readHost(c.Family)
	if err != nil {
		return Uplink{}, err
	}
	return c.pick(h, kernel{c.Family})
}

// Wait makes the choice. If that is not possible yet, Wait makes it again after
// each change of interfaces, addresses and routes. Every 30 s it logs what is
// missing. It returns an error at once if waiting cannot help. When ctx ends, it
// returns ctx's error and what is missing.
func Wait(ctx context.Context, c Choice) (u Uplink, err error) {
	var logged string
	var at time.Time
	err = watch(ctx, c.Family, reconcile.NewSignal(), func(context.Context) error {
		var missing error
		u, missing = Find(c)
		if !errors.Is(missing, errNotReady) {
			return reconcile.Stop(missing)
		}
		// The ticks are logEvery apart, but the first may be close.
		if text := missing.Error(); text != logged || time.Since(at) >= logEvery/2 {
			log.Warningf("wait for interface reason=%q", text)
			logged, at = text, time.Now()
		}
		return nil
	})
	if err != nil || u.Index != 0 {
		return u, err
	}
	if u, err = Find(c); err != nil {
		return Uplink{}, fmt.Errorf("wait for interface: %w (%v)", ctx.Err(), err)
	}
	return u, nil
}

// groups are the multicast groups of addresses and routes.
var groups = [...][2]int{
	inet.IPv4: {unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV4_ROUTE},
	inet.IPv6: {unix.RTNLGRP_IPV6_IFADDR, unix.RTNLGRP_IPV6_ROUTE},
}

// watch calls look at once, after each change of interfaces, and of a family's
// addresses and routes, when changed is set, and every logEvery, until look stops it or ctx
// ends (nil). It does so on the caller's goroutine.
func watch(ctx context.Context, f inet.Family, changed reconcile.Signal, look func(context.Context) error) error {
	listener, err := reconcile.Listen(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK, groups[f][0], groups[f][1])
	if err != nil {
		return fmt.Errorf("watch uplink: %w", err)
	}
	defer listener.Close()
	changed.Set()
	return reconcile.Loop{
		Task:     "watch uplink",
		Changed:  changed,
		Interval: lookInterval,
		Burst:    lookBurst,
		Every:    logEvery,
		Watch: func(ctx context.Context, changed func()) error {
			return listener.Run(ctx, nil, changed)
		},
		Step: look,
	}.Run(ctx)
}
