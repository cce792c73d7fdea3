package store

import (
	"context"
	"errors"
	"time"

	"github.com/coreos/flannel/subnet"
	"github.com/coreos/flannel/subnet/kube"
)

// openCluster returns the Store of a Kubernetes cluster. It connects with its first
// call.
func openCluster(c Config) Store {
	k := kube.New(c.Kube)
	return Store{Source: k, Admin: assigned{}, API: APIKubernetes, Cluster: k, Opened: c,
		newHolder: func(c *subnet.Config, _ time.Duration) subnet.Holder { return k.Holder(c) }}
}

// Previous returns the attributes of this host's lease as the store had it last;
// zero if they are not known. In etcd a lease ends with its TTL.
func (s Store) Previous() subnet.Attrs {
	if s.Cluster == nil {
		return subnet.Attrs{}
	}
	return s.Cluster.Previous()
}

// assigned refuses the writes of commands: Kubernetes has objects of its own for
// what they change.
type assigned struct{}

var (
	errConfigIsFile   = errors.New("the network configuration is the key net-conf.json of a ConfigMap: use kubectl -n kube-flannel edit configmap kube-flannel-cfg")
	errNodeIsAssigned = errors.New("kube-controller-manager assigns the subnets: set spec.podCIDR of the Node when it is created")
)

func (assigned) PublishConfig(context.Context, []byte) (bool, error) { return false, errConfigIsFile }

func (assigned) ReplaceConfig(context.Context, []byte, []byte) error { return errConfigIsFile }

func (assigned) Reserve(context.Context, subnet.Lease) (subnet.Lease, error) {
	return subnet.Lease{}, errNodeIsAssigned
}

func (assigned) Delete(context.Context, subnet.Lease) error { return errNodeIsAssigned }

// Network names the network within its store.
func (c Config) Network() string {
	if c.API == APIKubernetes {
		return APIKubernetes
	}
	return c.Prefix
}

// Servers returns the URLs of the store's servers, without credentials.
func (f *Flags) Servers() ([]string, error) {
	if f.Kube.Enabled {
		return f.Config().Servers(), nil
	}
	c, err := f.Validate()
	return c.Endpoints, err
}

// Servers returns the URLs of the store's servers, as the operator wrote them.
func (c Config) Servers() []string {
	if c.API == APIKubernetes {
		return []string{c.Kube.Server()}
	}
	return c.Endpoints
}

// ConfigName returns where the network configuration is.
func (c Config) ConfigName() string {
	if c.API == APIKubernetes {
		return c.Kube.NetConfig
	}
	return c.Prefix + "/config"
}
