package embed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/etcd"
	"github.com/coreos/flannel/subnet/etcdv3"
	"github.com/coreos/flannel/subnet/subnettest/etcdserver"
)

// runEnv makes the test binary run a server on the directory that it names, and
// print the result.
const runEnv = "FLANNEL_TEST_EMBED_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(runEnv); dir != "" {
		s, err := New(Config{Dir: dir, Listen: "127.0.0.1:1"})
		if err == nil {
			err = s.Run(context.Background())
		}
		fmt.Println("Run:", err)
		os.Exit(0)
	}
	goleak.VerifyTestMain(m,
		// Goroutines for the life of the process: glog's flushing of files, and
		// log rotation, which etcd's command line may enable.
		goleak.IgnoreTopFunction("github.com/golang/glog.(*fileSink).flushDaemon"),
		goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// running is a server in Run.
type running struct {
	*Server
	stop  context.CancelFunc
	ended chan error
}

func run(t *testing.T, c Config) running {
	t.Helper()
	s, err := New(c)
	if err != nil {
		t.Fatalf("New: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := running{s, cancel, make(chan error, 1)}
	go func() { r.ended <- s.Run(ctx) }()
	return r
}

func (r running) waitReady(t *testing.T) {
	t.Helper()
	select {
	case <-r.Ready():
	case err := <-r.ended:
		t.Fatalf("Run: %v", err)
	}
}

func (r running) waitStop(t *testing.T) {
	t.Helper()
	r.stop()
	if err := <-r.ended; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func client(t *testing.T, endpoint string) *etcdv3.Store {
	t.Helper()
	r, err := etcdv3.New(etcd.ClientConfig{Endpoints: []string{endpoint}, Prefix: "/net"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// TestRestart: data outlive the server, and a watch does not delay its stop.
func TestRestart(t *testing.T) {
	c := Config{Dir: filepath.Join(t.TempDir(), "new", "etcd"), Listen: etcdserver.FreeAddr(t)}
	s := run(t, c)
	s.waitReady(t)
	if info, err := os.Stat(c.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("data directory: %v, %v", info.Mode(), err)
	}
	r := client(t, s.Endpoint())
	if _, err := r.PublishConfig(t.Context(), []byte("{}")); err != nil {
		t.Fatalf("PublishConfig: %v", err)
	}
	_, at, err := r.List(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	delivered, watching := make(chan subnet.Rev, 10), make(chan error, 1)
	go func() {
		watching <- r.Watch(t.Context(), at, func(rev subnet.Rev, _ []subnet.Event) { delivered <- rev })
	}()
	l := subnet.Lease{Subnet: netip.MustParsePrefix("10.5.1.0/24"), Attrs: subnet.Attrs{PublicIP: netip.MustParseAddr("192.0.2.1")}}
	if _, err := r.Create(t.Context(), l, time.Hour); err != nil {
		t.Fatalf("Create: %v", err)
	}
	<-delivered
	start := time.Now()
	s.waitStop(t)
	t.Logf("stopped in %v", time.Since(start))
	if err := <-watching; err == nil {
		t.Error("Watch of a stopped server: no error")
	}

	s = run(t, c)
	s.waitReady(t)
	r = client(t, s.Endpoint())
	if config, err := r.Config(t.Context()); err != nil || string(config) != "{}" {
		t.Errorf("Config after a restart = %q, %v", config, err)
	}
	s.waitStop(t)
}

// TestStopUnderWatch: a client that renews its watch, like etcd's own, does not
// delay the stop.
func TestStopUnderWatch(t *testing.T) {
	s := run(t, Config{Dir: t.TempDir(), Listen: etcdserver.FreeAddr(t)})
	s.waitReady(t)
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.Endpoint()}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if created := <-c.Watch(t.Context(), "/", clientv3.WithCreatedNotify()); !created.Created {
		t.Fatalf("Watch: %+v", created)
	}
	s.waitStop(t)
}

func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	s := run(t, Config{Dir: t.TempDir(), Listen: l.Addr().String()})
	err = <-s.ended
	for _, want := range []string{l.Addr().String(), "-etcd-embed-listen", "address already in use"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Run: %v, want %q in it", err, want)
		}
	}
	if !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("Run: %v does not wrap EADDRINUSE", err)
	}
}

func TestDirInUse(t *testing.T) {
	c := Config{Dir: t.TempDir(), Listen: etcdserver.FreeAddr(t)}
	s := run(t, c)
	s.waitReady(t)
	second := run(t, Config{Dir: c.Dir, Listen: etcdserver.FreeAddr(t)})
	if err := <-second.ended; err == nil || !strings.Contains(err.Error(), c.Dir+" is in use by another process") {
		t.Errorf("Run on another's data: %v", err)
	}
	s.waitStop(t)

	// Only the database is locked, as by a stock etcd.
	db, err := os.Open(filepath.Join(c.Dir, "member", "snap", "db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if err := unix.Flock(int(db.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	third := run(t, c)
	if err := <-third.ended; err == nil || !strings.Contains(err.Error(), "is in use by another process") {
		t.Errorf("Run on another's database: %v", err)
	}
}

// A user who forgets sudo learns what to do; another error stays as it is.
func TestRemedy(t *testing.T) {
	for cause, want := range map[error]string{
		unix.EACCES: "mkdir x: permission denied; run flannel as root, or name a folder of your own (-state-dir)",
		unix.ENOSPC: "mkdir x: no space left on device",
	} {
		if got := withRemedy(&fs.PathError{Op: "mkdir", Path: "x", Err: cause}).Error(); got != want {
			t.Errorf("the error is %q, want %q", got, want)
		}
	}
}

// TestDamagedData: Run returns an error where etcd would end its process. It runs in
// another process, as etcd leaves goroutines behind.
func TestDamagedData(t *testing.T) {
	c := Config{Dir: t.TempDir(), Listen: etcdserver.FreeAddr(t)}
	s := run(t, c)
	s.waitReady(t)
	s.waitStop(t)
	wals, err := filepath.Glob(filepath.Join(c.Dir, "member", "wal", "0*.wal"))
	if err != nil || len(wals) == 0 {
		t.Fatalf("WAL files: %v, %v", wals, err)
	}
	whole, err := os.ReadFile(wals[0])
	if err != nil {
		t.Fatal(err)
	}
	flipped := slices.Clone(whole)
	for i := 100; i < 200; i++ {
		flipped[i] ^= 0xff
	}
	for name, damaged := range map[string][]byte{"zeros": make([]byte, 8192), "flipped bits": flipped} {
		if err := os.WriteFile(wals[0], damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), runEnv+"="+c.Dir)
		out, err := cmd.Output()
		if err != nil || !strings.Contains(string(out), "Run: start embedded etcd on") || !strings.Contains(string(out), c.Dir) {
			t.Errorf("Run on data with %s: %s (%v)", name, out, err)
		}
		t.Logf("%s: %s", name, out)
	}
}

// TestFatalLog: a fatal error in one of etcd's goroutines ends that goroutine
// and is reported, once.
func TestFatalLog(t *testing.T) {
	fatal := make(chan error, 1)
	lg := newLogger(zap.NewAtomicLevelAt(zap.ErrorLevel), fatal)
	for range 2 {
		done := make(chan struct{})
		go func() {
			defer close(done)
			lg.Fatal("disk is full", zap.String("path", "/x"))
			runtime.KeepAlive(fatal)
			t.Error("the goroutine went on")
		}()
		<-done
	}
	if err := <-fatal; !strings.Contains(err.Error(), "disk is full") || !strings.Contains(err.Error(), "/x") {
		t.Errorf("fatal: %v", err)
	}
}

func TestListen(t *testing.T) {
	for listen, want := range map[string]string{
		"":                       "http://127.0.0.1:2379",
		"127.0.0.1:4001":         "http://127.0.0.1:4001",
		"http://10.1.2.3:2379":   "http://10.1.2.3:2379",
		"http://10.1.2.3:2379/":  "http://10.1.2.3:2379",
		"0.0.0.0:2379":           "http://127.0.0.1:2379",
		"[::]:2379":              "http://[::1]:2379",
		"[fd00::1]:2379":         "http://[fd00::1]:2379",
		"localhost:2379":         "http://localhost:2379",
		"https://10.1.2.3:2379":  "error",
		"10.1.2.3":               "error",
		"10.1.2.3:0":             "error",
		"10.1.2.3:99999":         "error",
		":2379":                  "error",
		"host.example.com:2379":  "error",
		"http://10.1.2.3:2379/x": "error",
	} {
		s, err := New(Config{Dir: "/x", Listen: listen})
		switch {
		case want == "error" && err == nil:
			t.Errorf("New, listen %q: no error", listen)
		case want == "error" && !strings.Contains(err.Error(), "-etcd-embed-listen"):
			t.Errorf("New, listen %q: %v does not name the flag", listen, err)
		case want != "error" && err != nil:
			t.Errorf("New, listen %q: %v", listen, err)
		case want != "error" && s.Endpoint() != want:
			t.Errorf("listen %q: Endpoint = %s, want %s", listen, s.Endpoint(), want)
		}
	}
	if _, err := New(Config{}); err == nil {
		t.Error("New without a directory: no error")
	}
	for addr, want := range map[string]bool{"127.0.0.1:1": true, "[::1]:1": true, "localhost:1": true, "0.0.0.0:1": false, "10.0.0.1:1": false} {
		if loopback(addr) != want {
			t.Errorf("loopback(%s) = %v", addr, !want)
		}
	}
}

// TestOnlyClientPort: the process listens on the client address only.
func TestOnlyClientPort(t *testing.T) {
	before := listening(t)
	s := run(t, Config{Dir: t.TempDir(), Listen: etcdserver.FreeAddr(t)})
	s.waitReady(t)
	defer s.waitStop(t)
	found := false
	for _, addr := range listening(t) {
		switch {
		case addr == s.addr:
			found = true
		case !slices.Contains(before, addr):
			t.Errorf("something listens on %s, besides the clients' %s", addr, s.addr)
		}
	}
	if !found {
		t.Errorf("nothing listens on %s", s.addr)
	}
}

// listening returns the addresses that this process listens on.
func listening(t *testing.T) []string {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	var addrs []string
	for _, fd := range fds {
		n, err := strconv.Atoi(fd.Name())
		if err != nil {
			t.Fatal(err)
		}
		if on, err := unix.GetsockoptInt(n, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || on == 0 {
			continue
		}
		sa, err := unix.Getsockname(n)
		if err != nil {
			t.Fatal(err)
		}
		switch sa := sa.(type) {
		case *unix.SockaddrInet4:
			addrs = append(addrs, netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String())
		default:
			addrs = append(addrs, fmt.Sprintf("%+v", sa))
		}
	}
	return addrs
}
