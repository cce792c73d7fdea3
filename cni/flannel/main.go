// Command flannel is the CNI plugin, and the plugins that come along with it, as a
// program without the daemon. The program of the daemon is the same plugin under
// the name flannel; this one is a quarter of its size and starts faster.
// Container engines run a plugin twice in each pod's life.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/coreos/flannel/cni"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := cni.Run(ctx, os.Args[0])
	stop()
	os.Exit(code)
}
