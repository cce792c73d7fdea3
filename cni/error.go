package cni

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// invalid is an error in the network's configuration.
func invalid(remedy, format string, args ...any) *types.Error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), remedy)
}

// known are patterns of delegates' messages, and what to do about each. The kernel answers
// EOPNOTSUPP if it does not know a kind of device (rtnl_newlink, net/core/rtnetlink.c).
var known = []struct {
	message *regexp.Regexp
	remedy  string
}{
	{regexp.MustCompile("already has an IP address different from"),
		"this node has another subnet than before: drain it and run \"ip link delete\" with the bridge's name, or set \"forceAddress\": true in the delegate of the CNI configuration"},
	{regexp.MustCompile("no IP addresses available in range set"),
		"the node's subnet is full: \"flannel addresses\" on the node shows the addresses of pods that no longer exist, and with -free frees them"},
	{regexp.MustCompile("incompatible CNI versions"),
		"the plugin in CNI's folder is older than the \"cniVersion\" of the CNI configuration: update the plugin, or remove it and run \"flannel install-cni\""},
	{regexp.MustCompile("executable file not found"),
		"the plugin runs a program that the host lacks: install iptables or nftables"},
	{regexp.MustCompile(`could not add ".*": operation not supported`),
		"the kernel has no bridges: load the module with \"modprobe bridge\""},
	{regexp.MustCompile("failed to make veth pair: operation not supported"),
		"the kernel has no veth pairs: load the module with \"modprobe veth\""},
	{regexp.MustCompile("Failed to initialize nft: Protocol not supported"),
		"the kernel has no nftables, which this host's iptables needs: load the module with \"modprobe nf_tables\""},
	{regexp.MustCompile("can't initialize iptables table .*do you need to insmod"),
		"the kernel lacks tables of iptables: load the modules with \"modprobe -a iptable_nat iptable_filter\""},
}

// explain adds the remedy, if it is known, to a delegate's error.
func explain(err error, what string) error {
	var e *types.Error
	if !errors.As(err, &e) {
		e = types.NewError(types.ErrInternal, err.Error(), "")
	}
	explained := *e
	if explained.Code == 0 { // the delegate ended without an error object
		explained.Code = types.ErrInternal
	}
	explained.Msg = fmt.Sprintf("%s: %s", what, e.Msg)
	for _, k := range known {
		if k.message.MatchString(e.Msg) {
			explained.Details = strings.TrimPrefix(e.Details+"; "+k.remedy, "; ")
		}
	}
	return &explained
}
