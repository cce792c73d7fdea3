package tchook

import (
	"errors"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// TestExplain has what the kernel answers without a kind of qdisc or filter, and, as to a
// message that no kernel has, without traffic control.
func TestExplain(t *testing.T) {
	_, unknown := nl.NewNetlinkRequest(0xffff, unix.NLM_F_ACK).Execute(unix.NETLINK_ROUTE, 0)
	for err, want := range map[error]string{
		unix.ENOENT: `"modprobe cls_bpf"`,
		unknown:     "CONFIG_NET_SCHED, CONFIG_NET_CLS_ACT",
		unix.EINVAL: "",
	} {
		got := explain(err, "cls_bpf")
		if !errors.Is(got, err) || !strings.Contains(got.Error(), want) || (want == "") != (got == err) {
			t.Errorf("%v: %v, want %q in it", err, got, want)
		}
	}
}
