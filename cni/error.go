package cni

import (
	"errors"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
)

// invalid is an error in the network's configuration.
func invalid(remedy, format string, args ...any) *types.Error {
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf(format, args...), remedy)
}

// known are messages of delegates, and what to do about each.
var known = []struct{ message, remedy string }{
	{"already has an IP address different from",
		"this node has another subnet than before: drain it and run \"ip link delete\" with the bridge's name, or set \"forceAddress\": true in the delegate of the CNI configuration"},
	{"no IP addresses available in range set",
		"the node's subnet is full: \"flannel addresses\" on the node shows the addresses of pods that no longer exist, and with -free frees them"},
	{"incompatible CNI versions",
		"the plugin in CNI's folder is older than the \"cniVersion\" of the CNI configuration: update the plugin, or remove it and run \"flannel install-cni\""},
	{"executable file not found",
		"the plugin runs a program that the host lacks: install iptables or nftables"},
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
		if strings.Contains(e.Msg, k.message) {
			explained.Details = strings.TrimPrefix(e.Details+"; "+k.remedy, "; ")
		}
	}
	return &explained
}
