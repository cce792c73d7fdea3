package bpf

import (
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"

	"github.com/coreos/flannel/pkg/tchook"
)

// Names of pins of filters, in PinDir.
const (
	filterPrefix = "filter_"
	filterOut    = filterPrefix + "out_"
	filterIn     = filterPrefix + "in_"
)

// filterName is the name of a filter's pin: filter_in_INDEX_DEVICE.
func filterName(k tchook.Key) string {
	prefix := filterIn
	if k.Egress {
		prefix = filterOut
	}
	return prefix + strconv.Itoa(k.Index) + "_" + strconv.Itoa(k.Owner)
}

// parseFilter is the inverse of filterName.
func parseFilter(name string) (tchook.Key, error) {
	numbers, egress := strings.CutPrefix(name, filterOut)
	if !egress {
		numbers = strings.TrimPrefix(name, filterIn)
	}
	index, device, _ := strings.Cut(numbers, "_")
	i, err := strconv.Atoi(index)
	d, err2 := strconv.Atoi(device)
	if err := errors.Join(err, err2); err != nil {
		return tchook.Key{}, fmt.Errorf("parse pin %s: %w", name, err)
	}
	return tchook.Key{Egress: egress, Index: i, Owner: d}, nil
}

// pinnedHook returns the hook that is pinned at path; nil if there is none. A filter
// is one of the network namespace of tc.
func pinnedHook(tc *netlink.Handle, path string) (tchook.Hook, error) {
	if strings.HasPrefix(filepath.Base(path), filterPrefix) {
		k, err := parseFilter(filepath.Base(path))
		if err != nil {
			return nil, err
		}
		return tchook.PinnedFilter(tc, k, path)
	}
	h, err := tchook.PinnedLink(path)
	return h, explain(err)
}
