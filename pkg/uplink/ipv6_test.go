package uplink

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

var six = Choice{Family: inet.IPv6}

// Permanent addresses are better than those of router advertisements, and those than
// temporary ones. Others are not fit.
func TestRankOfIPv6Addresses(t *testing.T) {
	const fit = ""
	for _, test := range []struct {
		flags, rank int
		unfit       string
	}{
		{unix.IFA_F_PERMANENT, 0, fit}, {unix.IFA_F_MANAGETEMPADDR, 1, fit}, {0, 1, fit}, {unix.IFA_F_TEMPORARY, 2, fit},
		{unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE, 0, "tentative"}, {unix.IFA_F_TENTATIVE | unix.IFA_F_OPTIMISTIC, 1, fit},
		{unix.IFA_F_PERMANENT | unix.IFA_F_TENTATIVE | unix.IFA_F_DADFAILED, 0, "a duplicate of another host's"},
		{unix.IFA_F_DEPRECATED, 1, deprecated}, {unix.IFA_F_PERMANENT | unix.IFA_F_DEPRECATED, 0, deprecated},
	} {
		if rank, unfit := rankOf(test.flags), unfitness(inet.IPv6, test.flags); rank != test.rank || unfit != test.unfit {
			t.Errorf("flags %#x: rank %d, unfit %q; want %d, %q", test.flags, rank, unfit, test.rank, test.unfit)
		}
		if unfit := unfitness(inet.IPv4, test.flags); unfit != fit {
			t.Errorf("flags %#x of IPv4: unfit %q", test.flags, unfit)
		}
	}
}

// The choice of IPv6 is that of the best address, whatever the order in which they
// came, and independent of IPv4's.
func TestFindIPv6(t *testing.T) {
	h := enterNetns(t)
	addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	addLink(t, h, "eth1", 1400, "198.51.100.1/24")
	for _, line := range []string{
		"ip -6 addr add 2001:db8:1::d/64 dev eth1 nodad valid_lft 3000 preferred_lft 3000",
		"ip -6 addr add 2001:db8:1::1/64 dev eth1 nodad",
		"ip -6 addr add 2001:db8:1::de/64 dev eth1 nodad valid_lft 3000 preferred_lft 0",
		"ip -6 addr add 2001:db8:2::9/64 dev eth0 nodad",
		"ip route add default dev eth0", "ip -6 route add default dev eth1",
	} {
		run(t, line)
	}
	for name, test := range map[string]struct {
		choice      Choice
		iface, addr string
	}{
		"default route":                {six, "eth1", "2001:db8:1::1"},
		"name":                         {Choice{Ifaces: []string{"eth0"}}, "eth0", "2001:db8:2::9"},
		"address, though not the best": {Choice{Ifaces: []string{"2001:db8:1::d"}}, "eth1", "2001:db8:1::d"},
		"deprecated by choice":         {Choice{Ifaces: []string{"2001:db8:1::de"}}, "eth1", "2001:db8:1::de"},
		"address of the other family":  {Choice{Ifaces: []string{"192.0.2.1"}}, "eth0", "2001:db8:2::9"},
		"regexp of the other family":   {Choice{Regexes: []string{`^192\.`}}, "eth0", "2001:db8:2::9"},
		"regexp":                       {Choice{Regexes: []string{`::9$`}}, "eth0", "2001:db8:2::9"},
		"can reach":                    {Choice{CanReach: "2001:db8:2::77"}, "eth0", "2001:db8:2::9"},
		"can reach, other family":      {Choice{CanReach: "198.51.100.77"}, "eth1", "2001:db8:1::1"},
	} {
		u, err := Find(test.choice.Of(inet.IPv6))
		if err != nil || u.Name != test.iface || u.Addr != ip(test.addr) {
			t.Errorf("%s: %+v, %v; want %s of %s", name, u, err, test.addr, test.iface)
		}
	}
	if u, err := Find(Choice{Ifaces: []string{"2001:db8:1::1"}}); err != nil || u.Addr != ip("198.51.100.1") {
		t.Errorf("IPv4 by an IPv6 address: %+v, %v", u, err)
	}
}

// change runs a command of iproute2, or sets a parameter of eth0's IPv6.
func change(t *testing.T, line string) {
	t.Helper()
	name, value, _ := strings.Cut(line, " ")
	if name == "ip" {
		run(t, line)
		return
	}
	check(t, os.WriteFile(filepath.Join(ipv6Conf, "eth0", name), []byte(value), 0o644))
}

// What keeps an interface from IPv6 is named with the remedy, and may go away.
func TestObstaclesOfIPv6(t *testing.T) {
	h := enterNetns(t)
	l := addLink(t, h, "eth0", 1500, "192.0.2.1/24")
	name := Choice{Ifaces: []string{"eth0"}}.Of(inet.IPv6)
	for _, test := range []struct{ make, undo, want string }{
		{"ip link set eth0 up", "ip -6 addr add 2001:db8::1/64 dev eth0 nodad", "interface eth0 has no IPv6 address that other hosts can reach"}, // link-local only
		{"ip link set eth0 mtu 1279", "ip link set eth0 mtu 1500", "MTU 1279 of interface eth0 is below 1280, the minimum of IPv6 (RFC 8200, section 5); raise it: ip link set eth0 mtu 1280"},
		{"disable_ipv6 1", "disable_ipv6 0", "IPv6 is off on interface eth0; turn it on: sysctl -w net.ipv6.conf.eth0.disable_ipv6=0"},
	} {
		change(t, test.make)
		if _, err := Find(name); err == nil || !strings.Contains(err.Error(), test.want) || !errors.Is(err, errNotReady) {
			t.Errorf("%s: %v, want %q", test.make, err, test.want)
		}
		if _, err := Find(six); err == nil || strings.Contains(test.want, "eth0;") && !strings.Contains(err.Error(), "no IPv6 default route: "+test.want) {
			t.Errorf("%s: by default route: %v", test.make, err)
		}
		if _, err := Find(Choice{Ifaces: []string{"eth0"}}); err != nil {
			t.Errorf("%s: IPv4: %v", test.make, err)
		}
		change(t, test.undo)
	}
	run(t, "ip -6 addr replace 2001:db8::1/64 dev eth0 nodad") // an MTU below 1280 takes it away
	if u, err := Find(name); err != nil || u.Index != l.Attrs().Index || u.Addr != ip("2001:db8::1") {
		t.Errorf("then %+v, %v", u, err)
	}
}

// An address that is renumbered is followed: one that is deprecated gives way to
// another, and works on until there is one.
func TestFollowIPv6(t *testing.T) {
	h := enterNetns(t)
	addLink(t, h, "eth0", 1500)
	run(t, "ip -6 addr add 2001:db8:1::1/64 dev eth0 nodad")
	run(t, "ip -6 route add default dev eth0")
	u, err := Find(six)
	check(t, err)
	run(t, "ip -6 addr change 2001:db8:1::1/64 dev eth0 valid_lft 3000 preferred_lft 0")
	if now, err := Successor(six, u); err != nil || now != u {
		t.Errorf("deprecated, without another: %+v, %v", now, err)
	}
	run(t, "ip -6 addr add 2001:db8:2::1/64 dev eth0 nodad")
	if next := followed(t, six, u); next.Addr != ip("2001:db8:2::1") {
		t.Errorf("renumbered: %+v", next)
	}
	// One of IPv4 alone does not count.
	run(t, "ip -6 addr flush dev eth0 scope global")
	run(t, "ip addr add 192.0.2.1/24 dev eth0")
	if _, err := Successor(six, u); err == nil || !strings.Contains(err.Error(), "IPv6") {
		t.Errorf("without an address: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Wait(ctx, six); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "no IPv6 address") {
		t.Errorf("Wait: %v", err)
	}
}
