package rtnl

import (
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A change by a thread without capabilities has the remedy.
func TestChangeWithoutCapability(t *testing.T) {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // without an end: the thread ends with the goroutine
		header, none := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, [2]unix.CapUserData{}
		if err := unix.Capset(&header, &none[0]); err != nil {
			result <- err
			return
		}
		c, err := dial()
		if err != nil {
			result <- err
			return
		}
		defer c.sock.Close()
		var refusal error
		err = c.do([]operation{{kind: unix.RTM_NEWROUTE, object: kernelRoute{}, failed: func(err error) { refusal = err }}})
		if err == nil {
			err = refusal
		}
		result <- err
	}()
	if err := <-result; err == nil || !strings.Contains(err.Error(), unix.EPERM.Error()+"; the daemon needs the capability CAP_NET_ADMIN") {
		t.Errorf("error %v", err)
	}
}
