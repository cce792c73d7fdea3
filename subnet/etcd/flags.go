package etcd

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
)

const defaultEndpoints = "http://127.0.0.1:4001,http://127.0.0.1:2379"

// FlagAliases are flags of Flags with the same meaning.
var FlagAliases = [][]string{{"etcd-endpoint", "etcd-endpoints"}}

// Flags are the command-line flags of an etcd client.
type Flags struct {
	ClientConfig
	passwordFile string
}

// Register adds the flags to fs, with their defaults.
func (f *Flags) Register(fs *flag.FlagSet) {
	f.Endpoints = splitList(defaultEndpoints)
	endpoints := listFlag{&f.Endpoints}
	fs.Var(endpoints, "etcd-endpoints", "comma-separated `URLs` of the etcd cluster")
	fs.Var(endpoints, "etcd-endpoint", "the same as -etcd-endpoints, in `URLs`")
	fs.StringVar(&f.Prefix, "etcd-prefix", "/coreos.com/network", "`path` of the network's keys in etcd")
	fs.StringVar(&f.CAFile, "etcd-cafile", "", "PEM `file` of the authority that signed etcd's certificate")
	fs.StringVar(&f.CertFile, "etcd-certfile", "", "PEM `file` of our certificate for etcd")
	fs.StringVar(&f.KeyFile, "etcd-keyfile", "", "PEM `file` of our key for etcd")
	fs.StringVar(&f.Username, "etcd-username", "", "`name` to log in to etcd with")
	fs.StringVar(&f.Password, "etcd-password", "", "password for etcd; other users of this host see the command line, so prefer -etcd-password-file")
	fs.StringVar(&f.passwordFile, "etcd-password-file", "", "`file` that holds the password for etcd")
}

// Complete reads the password file and checks all flags. It does not use the
// network.
func (f *Flags) Complete() error {
	if err := f.readPassword(); err != nil {
		return err
	}
	checked, err := f.Validate()
	if err != nil {
		return err
	}
	_, err = checked.TLS()
	return err
}

func (f *Flags) readPassword() error {
	if f.passwordFile == "" {
		return nil
	}
	if f.Password != "" {
		return errors.New("-etcd-password and -etcd-password-file are both given; drop one")
	}
	secret, err := os.ReadFile(f.passwordFile)
	if err != nil {
		return fmt.Errorf("read -etcd-password-file: %w", err)
	}
	f.Password = strings.TrimRight(string(secret), "\r\n")
	return nil
}

// listFlag is a comma-separated list. Setting it replaces the former list.
type listFlag struct{ to *[]string }

func (l listFlag) String() string {
	if l.to == nil {
		return ""
	}
	return strings.Join(*l.to, ",")
}

func (l listFlag) Set(s string) error {
	*l.to = splitList(s)
	return nil
}

func splitList(s string) (list []string) {
	for item := range strings.SplitSeq(s, ",") {
		if item = strings.TrimSpace(item); item != "" {
			list = append(list, item)
		}
	}
	return list
}
