package daemon

import (
	"os"

	log "github.com/golang/glog"

	"github.com/coreos/flannel/pkg/nodeid"
	"github.com/coreos/flannel/subnet"
)

// identity is what distinguishes this host from others with its public IP: the node
// id in the state folder. Without a usable one it is a random number, for this run
// only: two hosts with one address must find each other in any case. The next run
// then finds its lease by the address, after a challenge.
type identity struct {
	dir string
	// run is the identity of this run; zero while the folder's is in use.
	run nodeid.ID
}

// of adds the identity to the attributes of a lease.
func (i *identity) of(a subnet.Attrs) subnet.Attrs {
	a.NodeID = i.id().String()
	name, err := os.Hostname()
	if err != nil {
		log.V(1).Infof("go without a host name: %v", err)
	}
	a.Hostname = subnet.PrintableText(name)
	return a
}

func (i *identity) id() nodeid.ID {
	if i.run != (nodeid.ID{}) {
		return i.run
	}
	id, err := nodeid.Load(i.dir)
	if err != nil {
		return i.forRun(err)
	}
	return id
}

// replace makes a new identity.
func (i *identity) replace() nodeid.ID {
	id, err := nodeid.Replace(i.dir)
	if err != nil {
		return i.forRun(err)
	}
	return id
}

func (i *identity) forRun(reason error) nodeid.ID {
	i.run = nodeid.New()
	log.Warningf("use a node id of this run only node_id=%v reason=%q hint=%q", i.run, reason,
		"a writable -state-dir keeps this host's identity, and its lease at another address")
	return i.run
}
