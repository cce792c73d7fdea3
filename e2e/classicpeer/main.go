// Command classicpeer is a host that implements only the formats that all
// generations share: one bare IPv4 packet in a UDP datagram, and lease keys in etcd
// over plain HTTP. It is written from the description of these formats and shares no
// code with the daemon, so that the daemon can be tested against it.
//
// Like the first generation, it trusts every datagram and moves a packet at a time.
// It reads into a buffer of its tunnel's MTU and so truncates larger packets.
//
//	classicpeer -etcd http://192.168.77.1:2379 -api 2 -subnet 10.5.9.0/24 -public-ip 192.168.77.2
//
// It prints "ready" when its device is up and its lease is written.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// port is the UDP port of all hosts.
const port = 8285

type peer struct {
	network, subnet netip.Prefix
	publicIP        netip.Addr
	mtu             int
	store           store

	mu     sync.Mutex // guards routes
	routes map[netip.Prefix]netip.Addr
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil && ctx.Err() == nil {
		fmt.Fprintf(os.Stderr, "classicpeer: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	p := &peer{routes: make(map[netip.Prefix]netip.Addr)}
	fs := flag.NewFlagSet("classicpeer", flag.ExitOnError)
	etcd := fs.String("etcd", "http://127.0.0.1:2379", "etcd's URL")
	api := fs.String("api", "2", "etcd's API, 2 or 3")
	prefix := fs.String("prefix", "/coreos.com/network", "path of the network's keys")
	fs.TextVar(&p.network, "network", netip.MustParsePrefix("10.5.0.0/16"), "the overlay")
	fs.TextVar(&p.subnet, "subnet", netip.Prefix{}, "this host's part of it")
	fs.TextVar(&p.publicIP, "public-ip", netip.Addr{}, "this host's address")
	fs.IntVar(&p.mtu, "mtu", 1472, "the tunnel's MTU")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if *api == "2" {
		p.store = storeV2{*etcd, *prefix}
	} else {
		p.store = storeV3{*etcd, *prefix}
	}

	tun, err := openTUN("flannel0", p.subnet.Addr(), p.network, p.mtu)
	if err != nil {
		return err
	}
	defer tun.Close()
	socket, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(p.publicIP, port)))
	if err != nil {
		return err
	}
	defer socket.Close()
	if err := p.store.putLease(ctx, p.subnet, p.publicIP); err != nil {
		return err
	}
	fmt.Println("ready")

	var wg sync.WaitGroup
	defer wg.Wait()
	failed := make(chan error, 3)
	wg.Go(func() { failed <- p.send(tun, socket) })
	wg.Go(func() { failed <- p.receive(tun, socket) })
	wg.Go(func() { failed <- p.syncRoutes(ctx) })
	// Closing these ends the loops; it runs before the wait.
	defer socket.Close()
	defer tun.Close()
	select {
	case err := <-failed:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// send moves packets from the tunnel to the hosts.
func (p *peer) send(tun *os.File, socket *net.UDPConn) error {
	buf := make([]byte, p.mtu)
	for {
		n, err := tun.Read(buf)
		if err != nil {
			return err
		}
		if n < 20 || buf[0]>>4 != 4 {
			continue
		}
		if host := p.route(netip.AddrFrom4([4]byte(buf[16:20]))); host.IsValid() {
			// A failed datagram is a lost packet.
			_, _ = socket.WriteToUDPAddrPort(buf[:n], netip.AddrPortFrom(host, port))
		}
	}
}

// receive moves datagrams from any sender to the tunnel.
func (p *peer) receive(tun *os.File, socket *net.UDPConn) error {
	buf := make([]byte, p.mtu)
	for {
		n, _, err := socket.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		if _, err := tun.Write(buf[:n]); err != nil && !errors.Is(err, syscall.EINVAL) {
			return err
		}
	}
}

func (p *peer) route(to netip.Addr) netip.Addr {
	p.mu.Lock()
	defer p.mu.Unlock()
	for subnet, host := range p.routes {
		if subnet.Contains(to) {
			return host
		}
	}
	return netip.Addr{}
}
