package tun

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The remedy is that for the step which was refused.
func TestExplain(t *testing.T) {
	for _, test := range []struct {
		err, open error
		want      string
	}{
		{unix.EPERM, nil, "capability CAP_NET_ADMIN"},
		{unix.EPERM, unix.EPERM, "device cgroup"},
		{&os.PathError{Op: "open", Path: clonePath, Err: unix.EPERM}, fmt.Errorf("open: %w", unix.EPERM), "device cgroup"},
		{unix.EACCES, unix.EACCES, "the file's mode or owner"},
		{unix.ENOENT, unix.ENOENT, "modprobe tun"},
		{unix.ENODEV, nil, "modprobe tun"},
		{unix.ENOMEM, nil, "cannot allocate memory"},
	} {
		got := explain(test.err, func() error { return test.open }).Error()
		if !strings.Contains(got, test.want) || strings.Contains(got, "CAP_NET_ADMIN") != strings.Contains(test.want, "CAP_NET_ADMIN") {
			t.Errorf("%v, %v: %q, want %q", test.err, test.open, got, test.want)
		}
	}
}
