package subnet

import (
	"encoding/json"
	"net/netip"
)

// Config is the network configuration that all hosts share.
type Config struct {
	Network netip.Prefix
	SubnetLen int
	SubnetMin, SubnetMax netip.Addr
	BackendType string
	Backend json.RawMessage
}
