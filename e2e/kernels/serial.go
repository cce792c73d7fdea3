package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
)

var exit = regexp.MustCompile(`^GUEST-EXIT (\d+)`)

// follow copies the lines of a guest's serial port to out, with prefix before each. It
// returns the exit code among them. It reads to the end in any case: a guest waits for
// its reader.
func follow(serial io.Reader, prefix string, out io.Writer) (code string, err error) {
	r := bufio.NewReader(serial)
	begins := true // the piece begins a line
	for {
		piece, more, readErr := r.ReadLine()
		if readErr != nil {
			if !errors.Is(readErr, io.EOF) {
				err = errors.Join(err, fmt.Errorf("read the guest's serial port: %w", readErr))
			}
			return code, err
		}
		m := exit.FindSubmatch(piece)
		if begins && m != nil {
			code = string(m[1])
		} else if err == nil {
			piece = bytes.TrimRight(piece, "\r")
			if begins {
				piece = append([]byte(prefix), piece...)
			}
			if !more {
				piece = append(piece, '\n')
			}
			_, err = out.Write(piece)
		}
		begins = !more
	}
}
