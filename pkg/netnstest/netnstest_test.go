package netnstest

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// crashEnv makes the test binary a run that is to be killed.
const crashEnv = "NETNSTEST_CRASH"

func TestMain(m *testing.M) {
	if os.Getenv(crashEnv) != "" {
		crash()
	}
	os.Exit(m.Run())
}

// crash makes a lab with a process in it, prints the process's id, and waits to be
// killed.
func crash() {
	h := New(endless{}).Host("crashed")
	c := h.Command(context.Background(), "sleep", "10")
	if err := c.Start(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Println(c.Process.Pid)
	select {}
}

// endless is a scope that never ends.
type endless struct{}

func (endless) Helper()                   {}
func (endless) Logf(string, ...any)       {}
func (endless) Cleanup(func())            {}
func (endless) Fatalf(f string, a ...any) { fmt.Printf(f+"\n", a...); os.Exit(1) }

// here identifies the namespace of the thread that runs the caller.
func here(t *testing.T) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/net", &s); err != nil {
		t.Fatal(err)
	}
	return s.Ino
}

func inode(t *testing.T, h *Host) uint64 {
	t.Helper()
	var s unix.Stat_t
	if err := unix.Stat(filepath.Join(netnsDir, h.Netns()), &s); err != nil {
		t.Fatal(err)
	}
	return s.Ino
}

func ping(t *testing.T, from *Host, to netip.Addr) error {
	t.Helper()
	out, err := from.Command(t.Context(), "ping", "-c1", "-W2", to.String()).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	return nil
}

func TestHostsReachEachOtherAndTheRouter(t *testing.T) {
	Require(t)
	l := New(t)
	a, b := l.Host("a"), l.Host("b")
	for _, to := range []netip.Addr{a.Addr().Addr(), b.Addr().Addr(), router} {
		if err := ping(t, a, to); err != nil {
			t.Errorf("ping %v: %v", to, err)
		}
	}
	if err := ping(t, l.Unwired("c"), a.Addr().Addr()); err == nil {
		t.Error("a host without address reached another")
	}
}

func TestContainersBehindBridges(t *testing.T) {
	Require(t)
	l := New(t)
	a, b := l.Host("a"), l.Host("b")
	netA, netB := netip.MustParsePrefix("10.5.1.0/24"), netip.MustParsePrefix("10.5.2.0/24")
	gwA, gwB := netA.Addr().Next(), netB.Addr().Next()
	a.Bridge("docker0", netip.PrefixFrom(gwA, 24), 1472)
	b.Bridge("docker0", netip.PrefixFrom(gwB, 24), 1472)
	ca := a.Container("container-of-a", "docker0", netip.PrefixFrom(gwA.Next(), 24), gwA, 1472)
	cb := b.Container("container-of-b", "docker0", netip.PrefixFrom(gwB.Next(), 24), gwB, 1472)
	if err := ping(t, ca, cb.Addr().Addr()); err == nil {
		t.Fatal("containers reached each other without a route between their hosts")
	}
	a.AddRoute(netB, b.Addr().Addr(), "")
	b.AddRoute(netA, a.Addr().Addr(), "")
	if err := ping(t, ca, cb.Addr().Addr()); err != nil {
		t.Fatal(err)
	}
	link, err := ca.Netlink().LinkByName("eth0")
	if err != nil || link.Attrs().MTU != 1472 {
		t.Errorf("container's eth0: MTU %d, %v; want 1472", link.Attrs().MTU, err)
	}
}

func TestDoEntersAndReturns(t *testing.T) {
	Require(t)
	l := New(t)
	home := here(t)
	const each = 50
	var wg sync.WaitGroup
	for i := range 8 {
		h := l.Namespace(fmt.Sprint("h", i))
		want := inode(t, h)
		if want == home {
			t.Fatal("the namespace is our own")
		}
		wg.Go(func() {
			for range each {
				err := h.Do(func() error {
					if got := here(t); got != want {
						return fmt.Errorf("inside: namespace %d, want %d", got, want)
					}
					// A goroutine started inside is outside.
					outside := make(chan uint64)
					go func() { outside <- here(t) }()
					if got := <-outside; got != home {
						return fmt.Errorf("goroutine started inside: namespace %d, want %d", got, home)
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
				if got := here(t); got != home {
					t.Errorf("after: namespace %d, want %d", got, home)
				}
			}
		})
	}
	wg.Wait()
}

func TestDoReturnsWhenTheGoroutineEnds(t *testing.T) {
	Require(t)
	h := New(t).Namespace("h")
	home := here(t)
	// Goexit inside a locked goroutine would end the thread; Do unlocks first,
	// in the right namespace, so deferred code sees home.
	seen := make(chan uint64, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() { seen <- here(t) }()
		_ = h.Do(func() error { runtime.Goexit(); return nil })
	}()
	<-done
	if got := <-seen; got != home {
		t.Errorf("after Goexit: namespace %d, want %d", got, home)
	}
}

func TestDoNests(t *testing.T) {
	Require(t)
	l := New(t)
	a, b := l.Namespace("a"), l.Namespace("b")
	err := a.Do(func() error {
		if err := b.Do(func() error {
			if here(t) != inode(t, b) {
				return errors.New("not in b")
			}
			return nil
		}); err != nil {
			return err
		}
		if here(t) != inode(t, a) {
			return errors.New("not back in a")
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSocketsStayInside(t *testing.T) {
	Require(t)
	l := New(t)
	a, b := l.Host("a"), l.Host("b")
	server, err := a.Listen(t.Context(), "tcp", netip.AddrPortFrom(a.Addr().Addr(), 80).String())
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		c, err := server.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		// An answer that comes before the request is an error to the client.
		if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
			t.Error(err)
			return
		}
		fmt.Fprint(c, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi")
	})
	answer, err := b.HTTP().Get("http://" + server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err := io.ReadAll(answer.Body); err != nil || string(body) != "hi" {
		t.Errorf("got %q, %v; want hi", body, err)
	}
	p, err := a.ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	outside, err := net.Dial("udp", p.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer outside.Close()
	if _, err = outside.Write([]byte("x")); err == nil {
		_, err = outside.Read(make([]byte, 1))
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("our own loopback answered for the host's port: %v", err)
	}
}

func TestSysctlIsTheHosts(t *testing.T) {
	Require(t)
	h := New(t).Namespace("h")
	const name = "/proc/sys/net/ipv4/ip_default_ttl"
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	h.Sysctl("net.ipv4.ip_default_ttl", "77")
	var inside []byte
	if err := h.Do(func() (err error) { inside, err = os.ReadFile(name); return err }); err != nil {
		t.Fatal(err)
	}
	if got := strings.TrimSpace(string(inside)); got != "77" {
		t.Errorf("inside: %s, want 77", got)
	}
	if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
		t.Errorf("outside: %s, %v; want %s", after, err, before)
	}
}

func TestNoLeftovers(t *testing.T) {
	Require(t)
	var name string
	var c *Cmd
	fds := openFiles(t)
	t.Run("lab", func(t *testing.T) {
		h := New(t).Host("h")
		name = h.Netns()
		c = h.Command(context.Background(), "sleep", "10")
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/net", c.Process.Pid)); err != nil || got != fmt.Sprintf("net:[%d]", inode(t, h)) {
			t.Errorf("process runs in %s, %v", got, err)
		}
	})
	var exit *exec.ExitError
	if err := c.Wait(); !errors.As(err, &exit) || exit.Sys().(interface{ Signal() unix.Signal }).Signal() != unix.SIGKILL {
		t.Errorf("process ended with %v, want a kill", err)
	}
	if _, err := os.Stat(filepath.Join(netnsDir, name)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace %s is still there: %v", name, err)
	}
	if after := openFiles(t); after > fds {
		t.Errorf("%d open files, %d before", after, fds)
	}
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestCommandHonoursItsContext(t *testing.T) {
	Require(t)
	h := New(t).Namespace("h")
	ctx, cancel := context.WithCancel(t.Context())
	c := h.Command(ctx, "sleep", "10")
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := c.Wait(); err == nil {
		t.Error("the process ended well; want it killed")
	}
}

func TestNewRemovesLeftoversOfDeadRuns(t *testing.T) {
	Require(t)
	run := exec.Command(os.Args[0])
	run.Env = append(os.Environ(), crashEnv+"=1")
	run.Stderr = os.Stderr
	stdout, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var sleeper int
	if _, err := fmt.Sscan(line, &sleeper); err != nil {
		t.Fatalf("run printed %q", line)
	}
	mine := fmt.Sprintf("%s%d-", namePrefix, run.Process.Pid)

	// A living run keeps its namespaces.
	New(t)
	if got := namespaces(t, mine); len(got) != 2 {
		t.Errorf("a living run has %q; want two namespaces", got)
	}
	if err := run.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = run.Wait()
	New(t)
	if got := namespaces(t, mine); len(got) != 0 {
		t.Errorf("a dead run still has %q", got)
	}
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", sleeper)); err == nil && !strings.Contains(string(stat), ") Z ") {
		t.Errorf("its process still lives: %s", stat)
	}
}

func namespaces(t *testing.T, prefix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(netnsDir, prefix+"*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestOrphaned(t *testing.T) {
	self, err := runPrefix()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{
		self + "1-a": false,
		// Our process id with another start time: a process before us had it.
		fmt.Sprintf("%s%d-1-1-a", namePrefix, os.Getpid()): true,
		// Above the kernel's largest process id, 2^22.
		namePrefix + "99999999-1-1-a": true,
		namePrefix + "x-1-1-a":        false,
		namePrefix + "1":              false,
		"cni-99999999-1-1-a":          false,
	} {
		if got := orphaned(name); got != want {
			t.Errorf("orphaned(%q) = %v, want %v", name, got, want)
		}
	}
}
