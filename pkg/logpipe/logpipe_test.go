package logpipe_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/coreos/flannel/pkg/logpipe"
)

// patience bounds what must happen at once.
const patience = 10 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv(crashing) != "" {
		crash()
	}
	signal.Ignore(syscall.SIGPIPE) // a reader that goes away is an error, as in the program
	os.Exit(m.Run())
}

// start returns a Pipe and the end that a reader of the log has.
func start(t *testing.T, size int) (*logpipe.Pipe, *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p, err := logpipe.New(w, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		r.Close() // lets a write under way fail
		if err := p.Close(); err != nil {
			t.Error(err)
		}
		w.Close()
	})
	return p, r
}

func write(t *testing.T, p *logpipe.Pipe, line string) {
	t.Helper()
	if _, err := fmt.Fprintln(p.File(), line); err != nil {
		t.Fatalf("write to the log: %v", err)
	}
}

func TestLinesArriveInOrder(t *testing.T) {
	p, r := start(t, logpipe.Size)
	for i := range 1000 {
		write(t, p, fmt.Sprint("line ", i))
	}
	lines := bufio.NewScanner(r)
	for i := range 1000 {
		if !lines.Scan() || lines.Text() != fmt.Sprint("line ", i) {
			t.Fatalf("line %d: %q, %v", i, lines.Text(), lines.Err())
		}
	}
}

// Text of others in a line is no order to the reader's terminal.
func TestControlCharacters(t *testing.T) {
	p, r := start(t, logpipe.Size)
	write(t, p, "peer \x1b[2J\rx")
	if got, err := bufio.NewReader(r).ReadString('\n'); err != nil || got != `peer \x1b[2J\rx`+"\n" {
		t.Errorf("read %q, %v", got, err)
	}
}

// A reader that has stopped holds up no writer. Once it reads again, it gets the
// first lines, the number of those that it missed, and what comes then.
func TestStoppedReader(t *testing.T) {
	p, r := start(t, 4<<10)
	const lines = 20_000 // 2 MB, more than pipes and buffers hold
	text := strings.Repeat("y", 100)
	for i := range lines {
		write(t, p, fmt.Sprintf("line %d %s", i, text))
	}
	if p.Flush(time.Millisecond) {
		t.Error("Flush returns true though nobody reads")
	}
	log := bufio.NewScanner(r)
	missing := regexp.MustCompile(`^W\d{4} [\d:.]+ +\d+ logpipe\.go:1\] (\d+) lines of the log are missing`)
	got, gone := 0, 0
	for got+gone < lines && log.Scan() {
		if m := missing.FindStringSubmatch(log.Text()); m != nil {
			n := 0
			fmt.Sscan(m[1], &n)
			gone += n
			continue
		}
		n := -1
		if fmt.Sscanf(log.Text(), "line %d ", &n); n != got+gone {
			t.Fatalf("line %d after %d lines and %d missing", n, got, gone)
		}
		got++
	}
	if got < 100 || gone == 0 || got+gone != lines || p.Lost() != uint64(gone) {
		t.Errorf("%d lines and %d missing of %d; %d counted as lost", got, gone, lines, p.Lost())
	}
	write(t, p, "last")
	if !log.Scan() || log.Text() != "last" {
		t.Errorf("then %q, want the last line", log.Text())
	}
}

// Without a reader, and on a full disk, lines are lost and nothing else happens.
func TestFailingFile(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, dst := range []*os.File{w, full} {
		p, err := logpipe.New(dst, logpipe.Size)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			write(t, p, "a line")
		}
		if !p.Flush(patience) {
			t.Error("Flush waits for a file that fails")
		}
		if p.Lost() != 10 {
			t.Errorf("%d lines lost, want 10", p.Lost())
		}
		if err := errors.Join(p.Close(), dst.Close()); err != nil {
			t.Error(err)
		}
	}
}

// A named pipe gets a reader again: it is told what it missed.
func TestReaderComesBack(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	w, err := os.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	p, err := logpipe.New(w, logpipe.Size)
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	for range 3 {
		write(t, p, "nobody reads this")
		p.Flush(patience)
	}
	if r, err = os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	write(t, p, "hello")
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	got, err := io.ReadAll(r)
	if err != nil || !strings.Contains(string(got), "] 3 lines of the log are missing here") || !strings.HasSuffix(string(got), "\nhello\n") {
		t.Errorf("read %q, %v", got, err)
	}
}

// After Flush the reader has all that was written before: lines before the end
// of the process are not lost.
func TestFlush(t *testing.T) {
	name := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := logpipe.New(f, logpipe.Size)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	want := ""
	for i := range 200 {
		line := fmt.Sprint("line ", i)
		write(t, p, line)
		want += line + "\n"
		if !p.Flush(patience) {
			t.Fatalf("no end of Flush %d", i)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Fatalf("after Flush %d the file ends in %q, %v", i, got[max(0, len(got)-40):], err)
		}
	}
}

// Another process that shares the file may make it non-blocking.
func TestNonblockingFile(t *testing.T) {
	var ends [2]int
	if err := syscall.Pipe(ends[:]); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(ends[0]), "r"), os.NewFile(uintptr(ends[1]), "w")
	defer w.Close()
	defer r.Close()
	if err := syscall.SetNonblock(ends[1], true); err != nil {
		t.Fatal(err)
	}
	p, err := logpipe.New(w, logpipe.Size)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.Repeat("z", 99)
	const lines = 1500 // more than a pipe holds
	for range lines {
		write(t, p, line)
	}
	if p.Flush(50 * time.Millisecond) {
		t.Error("a full pipe has taken everything")
	}
	got := make([]byte, lines*(len(line)+1))
	if _, err := io.ReadFull(r, got); err != nil || p.Lost() != 0 {
		t.Errorf("read: %v; %d lines lost", err, p.Lost())
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}
