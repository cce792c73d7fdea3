package kube

import "flag"

// Flags are the command-line flags of a Store.
type Flags struct {
	// Enabled is -kube-subnet-mgr.
	Enabled bool

	url, kubeconfig, netConfig, prefix string

	annotations Annotations
	self        Self
}

// Register adds the flags to fs, with their defaults.
func (f *Flags) Register(fs *flag.FlagSet) {
	fs.BoolVar(&f.Enabled, "kube-subnet-mgr", false, "take the lease from this host's Kubernetes Node, and those of the other hosts from theirs; flags of etcd have no effect then")
	fs.StringVar(&f.url, "kube-api-url", "", "`URL` of the Kubernetes API server; takes precedence over that in -kubeconfig-file (default: that of the pod)")
	fs.StringVar(&f.kubeconfig, "kubeconfig-file", "", "kubeconfig `file` with API server and credentials (default: the service account of the pod)")
	fs.StringVar(&f.netConfig, "net-config-path", "/etc/kube-flannel/net-conf.json", "`file` with the network configuration, for -kube-subnet-mgr")
	fs.StringVar(&f.prefix, "kube-annotation-prefix", DefaultPrefix, "`prefix` of the annotations on Node objects")
}

// Complete checks the flags. It uses neither network nor files.
func (f *Flags) Complete() (err error) {
	f.annotations, err = ParseAnnotations(f.prefix)
	return err
}

// Join makes the Store that of a host: NODE_NAME, or POD_NAME and POD_NAMESPACE,
// name its Node. Without Join it only reads.
func (f *Flags) Join() (err error) {
	f.self, err = selfFromEnvironment()
	return err
}

// Config returns the configuration of the Store.
func (f *Flags) Config() Config {
	return Config{URL: f.url, Kubeconfig: f.kubeconfig, NetConfig: f.netConfig, Annotations: f.annotations, Self: f.self}
}
