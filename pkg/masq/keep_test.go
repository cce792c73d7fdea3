package masq

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/netnstest"
	"github.com/coreos/flannel/pkg/reconcile"
)

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// runIn starts Run in h; stop ends it and returns its error.
func runIn(t *testing.T, h *netnstest.Host, r Rules) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Do(func() error { return Run(ctx, r) }) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { stop() })
	return stop
}

// until polls nft until the ruleset is want.
func until(t *testing.T, h *netnstest.Host, what, want string) {
	t.Helper()
	netnstest.Eventually(t, what, func() error {
		if got := nft(t, h, "list", "ruleset"); got != want {
			return fmt.Errorf("nft lists\n%s\nwant\n%s", got, want)
		}
		return nil
	})
}

func TestRunRepairs(t *testing.T) {
	h := newNamespace(t)
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	stop := runIn(t, h, sample())
	until(t, h, "at start", golden)
	for _, damage := range []string{
		"flush ruleset",
		"delete table ip flannel-10.5.0.0-16",
		"flush chain ip flannel-10.5.0.0-16 postrouting",
		"flush chain ip flannel-10.5.0.0-16 forward; delete chain ip flannel-10.5.0.0-16 forward",
		"insert rule ip flannel-10.5.0.0-16 postrouting masquerade",
		"add chain ip flannel-10.5.0.0-16 x",
		"chain ip flannel-10.5.0.0-16 forward { policy drop; }",
	} {
		nft(t, h, damage)
		until(t, h, damage, golden)
	}
	check(t, stop())
	if got := nft(t, h, "list", "ruleset"); got != golden {
		t.Errorf("after Run, nft lists\n%s", got)
	}
}

// TestOnlyOurTableConcernsUs reads the kernel's announcements of changes of
// others' tables and of ours.
func TestOnlyOurTableConcernsUs(t *testing.T) {
	h := newNamespace(t)
	nft(t, h, "add table ip foreign; add table ip ours; add table ip ours-too")
	for _, tt := range []struct {
		change string
		want   bool
	}{
		{"add chain ip foreign ours", false},
		{"add rule ip foreign ours accept", false},
		{"add chain ip ours-too c", false},
		{"delete table ip foreign", false},
		{"add chain ip ours c", true},
		{"add rule ip ours c accept", true},
		{"flush chain ip ours c", true},
		{"delete table ip ours", true},
		{"add table ip ours", true},
	} {
		var listener *reconcile.Listener
		check(t, h.Do(func() (err error) {
			listener, err = reconcile.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
			return err
		}))
		nft(t, h, tt.change)
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		var got, end bool
		check(t, listener.Run(ctx, func(datagram []byte) bool {
			got = got || concerns(datagram, "ours", 0)
			messages, err := syscall.ParseNetlinkMessage(datagram)
			check(t, err)
			return slices.ContainsFunc(messages, func(m syscall.NetlinkMessage) bool {
				return m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN
			})
		}, func() { // the new generation ends a transaction
			end = true
			cancel()
		}))
		cancel()
		check(t, listener.Close())
		if !end {
			t.Fatalf("%s: no end of the transaction within %v", tt.change, patience)
		}
		if got != tt.want {
			t.Errorf("%s: concerns us: %v, want %v", tt.change, got, tt.want)
		}
	}
}

func TestRunEnds(t *testing.T) {
	h := newNamespace(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	check(t, h.Do(func() error { return Run(ctx, sample()) }))
	if err := h.Do(func() error { return Run(t.Context(), Rules{}) }); err == nil {
		t.Error("Run with no network gave no error")
	}
}

func TestDropsAreFound(t *testing.T) {
	h := newNamespace(t)
	nft(t, h, `add table ip a; add chain ip a FORWARD { type filter hook forward priority 0; policy drop; }
		add chain ip a in { type filter hook input priority 0; policy drop; }
		add table inet b; add chain inet b f { type filter hook forward priority 5; policy drop; }
		add table ip6 c; add chain ip6 c f { type filter hook forward priority 0; policy drop; }
		add table ip d; add chain ip d f { type filter hook forward priority 0; policy accept; }`)
	var found []string
	check(t, h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		chains, err := c.ListChains()
		for _, chain := range drops(chains, nftables.TableFamilyIPv4) {
			found = append(found, chain.Table.Name+" "+chain.Name)
		}
		return err
	}))
	if len(found) != 2 || found[0] != "a FORWARD" || found[1] != "b f" {
		t.Errorf("drops = %q, want those of tables a and b", found)
	}
}

// TestOwnChangesDoNotConcernUs reads the announcements of our own transaction.
func TestOwnChangesDoNotConcernUs(t *testing.T) {
	h := newNamespace(t)
	r := sample()
	check(t, h.Do(func() error {
		listener, err := reconcile.Listen(unix.NETLINK_NETFILTER, unix.NFNLGRP_NFTABLES)
		if err != nil {
			return err
		}
		defer listener.Close()
		c, own, err := r.connectLasting()
		if err != nil {
			return err
		}
		defer c.CloseLasting()
		if err := r.apply(c); err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		announced := false
		return listener.Run(ctx, func(datagram []byte) bool {
			if concerns(datagram, table(r.Network).Name, own) {
				t.Error("our own change concerns us")
			}
			announced = announced || concerns(datagram, table(r.Network).Name, 0)
			return announced
		}, cancel)
	}))
}

// TestRunAmidChanges has another program flush our chain all the while.
func TestRunAmidChanges(t *testing.T) {
	h := newNamespace(t)
	stop := runIn(t, h, sample())
	until(t, h, "at start", golden)
	check(t, h.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		for range 2000 { // the quarrel ends after a while, as each does
			c.FlushChain(&nftables.Chain{Name: "postrouting", Table: table(sample().Network)})
			if err := c.Flush(); err != nil {
				return err
			}
		}
		return nil
	}))
	until(t, h, "after the quarrel", golden)
	check(t, stop())
}
