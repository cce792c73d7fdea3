// Package logpipe keeps a log's reader from stopping the log's writers.
//
//	glog ─► File ─► collect ─► buffer of whole lines ─► deliver ─► standard error
//
// Control characters are escaped. A write to File never waits for the reader and
// never fails. While standard error takes nothing, lines wait in a bounded buffer.
// Lines that do not fit are dropped and counted. The count becomes a line of the
// log, at the place of the lines that are missing.
package logpipe

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/printable"
)

// Size is a buffer that holds about a thousand lines.
const Size = 256 << 10

// flushLine marks the place in the pipe that Flush waits for. It starts with a
// byte that no line of a log starts with.
const flushLine = "\x00flush\n"

// Pipe passes lines from File to another file, at the pace of that file.
type Pipe struct {
	in, out *os.File // the pipe's ends: in is written to
	dst     *os.File
	size    int
	lost    atomic.Uint64

	mu        sync.Mutex      // guards what follows
	buf       []byte          // whole lines that deliver has not taken yet
	dropped   int             // lines after those in buf
	requested []chan struct{} // by Flush; the pipe holds a flushLine for each
	flushed   []chan struct{} // their lines are in buf
	ended     bool            // collect has ended

	wake chan struct{} // buffered by one: what mu guards has changed
	done sync.WaitGroup
}

// New returns a Pipe that writes to dst. It holds up to two times size bytes:
// what deliver writes, and what waits behind that. The caller keeps dst open
// until Close returns, and closes it.
func New(dst *os.File, size int) (*Pipe, error) {
	out, in, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("make pipe for the log: %w", err)
	}
	p := &Pipe{in: in, out: out, dst: dst, size: size, wake: make(chan struct{}, 1)}
	p.done.Go(p.collect)
	p.done.Go(p.deliver)
	return p, nil
}

// File returns the file to log to. Each line is one write.
func (p *Pipe) File() *os.File { return p.in }

// Lost returns the number of lines that were dropped.
func (p *Pipe) Lost() uint64 { return p.lost.Load() }

// Flush waits until dst has got every line that was written to File before. It
// returns false if that takes longer than limit.
func (p *Pipe) Flush(limit time.Duration) bool {
	flushed := make(chan struct{})
	p.mu.Lock()
	p.requested = append(p.requested, flushed)
	p.mu.Unlock()
	if _, err := p.in.WriteString(flushLine); err != nil {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-flushed:
		return true
	case <-timer.C:
		return false
	}
}

// Close ends the Pipe. It waits until dst has taken the last lines, for as long
// as dst needs. Nothing may write to File any more.
func (p *Pipe) Close() error {
	err := p.in.Close()
	p.done.Wait()
	return errors.Join(err, p.out.Close())
}

// collect empties the pipe into the buffer until File is closed.
func (p *Pipe) collect() {
	lines := bufio.NewReaderSize(p.out, 64<<10)
	for {
		line, err := lines.ReadSlice('\n')
		if string(line) != flushLine {
			line = printable.Lines(line)
		}
		more := err == nil || errors.Is(err, bufio.ErrBufferFull) // part of a long line
		p.add(line, !more)
		if !more {
			return
		}
	}
}

// add puts a line into the buffer, or drops it. From the first dropped line on,
// all are dropped until deliver takes the buffer, so that they are in one place.
func (p *Pipe) add(line []byte, last bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case string(line) == flushLine && len(p.requested) > 0:
		p.flushed = append(p.flushed, p.requested[0])
		p.requested = p.requested[1:]
	case len(line) == 0:
	case p.dropped == 0 && len(p.buf)+len(line) <= p.size:
		p.buf = append(p.buf, line...)
	default:
		p.dropped++
		p.lost.Add(1)
	}
	p.ended = p.ended || last
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// deliver writes what the buffer holds until collect has ended and the buffer is
// empty.
func (p *Pipe) deliver() {
	var spare []byte
	missing := 0 // lines that dst has not got, and no report of them
	for range p.wake {
		for more := true; more; {
			p.mu.Lock()
			lines, dropped, flushed, ended := p.buf, p.dropped, p.flushed, p.ended
			p.buf, p.dropped, p.flushed = spare[:0], 0, nil
			p.mu.Unlock()
			spare = lines
			if missing > 0 && p.write(report(missing)) == 0 {
				missing = 0
			}
			lost := p.write(lines)
			p.lost.Add(uint64(lost))
			missing += lost + dropped
			for _, f := range flushed {
				close(f)
			}
			if ended && len(lines) == 0 {
				return
			}
			more = lost == 0 && (len(lines) > 0 || dropped > 0)
		}
	}
}

// report is the line that stands for those that are missing, in glog's form.
func report(missing int) []byte {
	return fmt.Appendf(nil, "W%s %7d logpipe.go:1] %d lines of the log are missing here: standard error did not take them\n",
		time.Now().Format("0102 15:04:05.000000"), os.Getpid(), missing)
}

// write passes lines on, and waits while dst takes nothing. It returns how many
// are lost: dst fails if it is a pipe without a reader, or a file on a full disk.
func (p *Pipe) write(lines []byte) (lost int) {
	for len(lines) > 0 {
		n, err := p.dst.Write(lines)
		lines = lines[n:]
		if errors.Is(err, unix.EAGAIN) && p.waitWritable() == nil {
			continue
		}
		if err != nil {
			return bytes.Count(lines, []byte{'\n'})
		}
	}
	return 0
}

// waitWritable waits for dst where another process has made it non-blocking:
// that flag is of the open file, which processes share (fcntl(2)).
func (p *Pipe) waitWritable() error {
	raw, err := p.dst.SyscallConn()
	if err != nil {
		return err
	}
	var polled error
	err = raw.Control(func(fd uintptr) {
		_, polled = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, -1)
	})
	if errors.Is(polled, unix.EINTR) {
		polled = nil
	}
	return errors.Join(err, polled)
}
