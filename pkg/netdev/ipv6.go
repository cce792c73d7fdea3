package netdev

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"

	log "github.com/golang/glog"
)

// ipv6Settings is the folder of the interfaces' IPv6 parameters
// (Documentation/networking/ip-sysctl.rst).
const ipv6Settings = "/proc/sys/net/ipv6/conf"

// IPv6Settings sets the IPv6 parameters of our devices in one network namespace. The
// open folder is the namespace's, so any thread may use it.
type IPv6Settings struct{ folder *os.Root }

// OpenIPv6Settings opens the parameters of the calling thread's network namespace.
func OpenIPv6Settings() (*IPv6Settings, error) {
	folder, err := os.OpenRoot(ipv6Settings)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open IPv6 parameters: %w: this kernel has no IPv6; boot it without ipv6.disable=1, or leave IPv6 out of the network configuration", err)
	}
	if err != nil {
		return nil, fmt.Errorf("open IPv6 parameters: %w", err)
	}
	return &IPv6Settings{folder}, nil
}

// Close closes the folder.
func (s *IPv6Settings) Close() error { return s.folder.Close() }

// Set makes IPv6 work on a device of ours: on (disable_ipv6, which new devices inherit
// from conf/default), without router advertisements (accept_ra), and with its address
// when the device goes down (keep_addr_on_down). It writes nothing that is so
// already. Only the first parameter is needed: without the others the address comes
// back by a later pass.
func (s *IPv6Settings) Set(device string) error {
	if err := s.set(device, "disable_ipv6", "0"); err != nil {
		return fmt.Errorf("turn on IPv6 of %s: %w; set net.ipv6.conf.default.disable_ipv6=0 and delete the device, or leave IPv6 out of the network configuration", device, err)
	}
	for name, value := range map[string]string{"accept_ra": "0", "keep_addr_on_down": "1"} {
		if err := s.set(device, name, value); err != nil {
			log.V(1).Infof("set IPv6 parameter device=%s: %v", device, err)
		}
	}
	return nil
}

func (s *IPv6Settings) set(device, name, value string) error {
	path := device + "/" + name
	have, err := s.folder.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", name, err)
	}
	if string(bytes.TrimSpace(have)) == value {
		return nil
	}
	f, err := s.folder.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("set %s=%s: %w", name, value, err)
	}
	_, err = f.WriteString(value)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("set %s=%s: %w", name, value, err)
	}
	return nil
}
