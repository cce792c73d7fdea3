package uplink

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/coreos/flannel/pkg/inet"
)

// deprecated is the unfitness of an address whose preferred lifetime is over (RFC
// 4862, section 5.5.4): it works, and new connections should use another.
const deprecated = "deprecated"

// unfitness returns why an address with these flags (linux/if_addr.h) is not to be
// used; "" if it is. An IPv4 address always is.
func unfitness(f inet.Family, flags int) string {
	switch {
	case f == inet.IPv4:
	case flags&unix.IFA_F_DADFAILED != 0:
		return "a duplicate of another host's"
	case flags&unix.IFA_F_TENTATIVE != 0 && flags&unix.IFA_F_OPTIMISTIC == 0:
		return "tentative"
	case flags&unix.IFA_F_DEPRECATED != 0:
		return deprecated
	}
	return ""
}

// rankOf orders the IPv6 addresses of an interface, the best first: permanent ones,
// then those of router advertisements or DHCPv6, then temporary ones (RFC 8981),
// which other hosts would soon send to in vain.
func rankOf(flags int) int {
	switch {
	case flags&unix.IFA_F_TEMPORARY != 0:
		return 2
	case flags&unix.IFA_F_PERMANENT == 0:
		return 1
	}
	return 0
}

// ipv6Conf is the kernel's folder of IPv6 settings for each interface. A kernel
// without IPv6 does not have it.
const ipv6Conf = "/proc/sys/net/ipv6/conf"

// obstacle returns why the interface cannot carry the host's family, with the
// remedy; nil if it can. It may go away.
func (h host) obstacle(l link) error {
	if h.family == inet.IPv4 {
		return nil
	}
	name := l.names[0]
	if _, err := os.Stat(ipv6Conf); errors.Is(err, fs.ErrNotExist) {
		return notReady("this kernel has no IPv6; start it without ipv6.disable=1, and load the module ipv6")
	}
	if minimum := h.family.MinMTU(); l.mtu < minimum {
		return notReady("MTU %d of interface %s is below %d, the minimum of IPv6 (RFC 8200, section 5); raise it: ip link set %s mtu %d", l.mtu, name, minimum, name, minimum)
	}
	// An interface may be gone since it was listed.
	value, err := os.ReadFile(filepath.Join(ipv6Conf, name, "disable_ipv6"))
	if err == nil && strings.TrimSpace(string(value)) == "1" {
		return notReady("IPv6 is off on interface %s; turn it on: sysctl -w net.ipv6.conf.%s.disable_ipv6=0", name, strings.ReplaceAll(name, ".", "/"))
	}
	return nil
}
