package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"

	"github.com/coreos/flannel/pkg/inet"
	"github.com/coreos/flannel/subnet"
)

// Self names this host's Node: by its name, or by a pod that runs on it.
type Self struct {
	Node           string
	Namespace, Pod string
}

// selfFromEnvironment returns what NODE_NAME, or else POD_NAME and POD_NAMESPACE,
// name. An empty variable counts as unset.
func selfFromEnvironment() (Self, error) {
	s := Self{Node: os.Getenv("NODE_NAME"), Pod: os.Getenv("POD_NAME"), Namespace: os.Getenv("POD_NAMESPACE")}
	if s.Node == "" && (s.Pod == "" || s.Namespace == "") {
		return Self{}, errors.New("the name of this host's Node is not known: set NODE_NAME to it (in a pod, by the downward API from spec.nodeName), or POD_NAME and POD_NAMESPACE")
	}
	return s, nil
}

// knownName returns the name of our Node; "" if it is not known yet.
func (s *Store) knownName() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.name
}

// selfName returns the name of our Node; "" for a Store that only reads. It may have
// to look at our pod.
func (s *Store) selfName(ctx context.Context) (string, error) {
	if name := s.knownName(); name != "" || s.config.Self == (Self{}) {
		return name, nil
	}
	self := s.config.Self
	var pod struct {
		Spec struct {
			NodeName string `json:"nodeName"`
		} `json:"spec"`
	}
	err := s.do(ctx, func(ctx context.Context, c *client) error {
		return c.call(ctx, request{method: http.MethodGet, path: "namespaces/" + self.Namespace + "/pods/" + self.Pod}, &pod)
	})
	if err == nil && pod.Spec.NodeName == "" {
		err = errors.New("it has no spec.nodeName")
	}
	if err != nil {
		return "", fmt.Errorf("look up the node of pod %s/%s: %w; NODE_NAME makes this unnecessary", self.Namespace, self.Pod, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.name = pod.Spec.NodeName
	return s.name, nil
}

// setOwn records our Node; nil: it does not exist.
func (s *Store) setOwn(n *node) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.own = own{true, n}
}

// readOwn reads our Node from the API server.
func (s *Store) readOwn(ctx context.Context) (*node, error) {
	name, err := s.selfName(ctx)
	if err != nil {
		return nil, err
	}
	n := new(node)
	err = s.do(ctx, func(ctx context.Context, c *client) error {
		return c.call(ctx, request{method: http.MethodGet, path: "nodes/" + name}, n)
	})
	if hasCode(err, http.StatusNotFound) {
		return nil, fmt.Errorf("node %s: %w", name, errNoNode)
	}
	if err != nil {
		return nil, fmt.Errorf("read node %s: %w", name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.read = n
	return n, nil
}

// Previous returns the attributes of our lease as the API server had it last, also
// those of an earlier run; zero if they are not known.
func (s *Store) Previous() subnet.Attrs {
	s.mu.Lock()
	n := s.read
	s.mu.Unlock()
	if n == nil {
		return subnet.Attrs{}
	}
	l, _, err := s.config.Annotations.lease(n)
	if err != nil {
		return subnet.Attrs{}
	}
	return l.Attrs
}

// Advertised returns the addresses that the administrator wrote into our Node for this
// host to advertise (node-public-ip); invalid ones without. It reads the Node.
func (s *Store) Advertised(ctx context.Context) (a subnet.Attrs, err error) {
	n, err := s.readOwn(ctx)
	if err != nil {
		return a, err
	}
	for _, f := range inet.Families {
		ip, err := s.config.Annotations.address(n, f, suffixNodeIP)
		if err != nil {
			return a, err
		}
		a.SetFamily(f, ip, nil)
	}
	return a, nil
}

// lastOwn returns our Node as the watch has it, and reads it if there is no watch.
func (s *Store) lastOwn(ctx context.Context) (*node, error) {
	s.mu.Lock()
	o, name, watched := s.own, s.name, s.watches > 0
	s.mu.Unlock()
	switch {
	case !o.known || !watched || s.usable(ctx) != nil:
		return s.readOwn(ctx)
	case o.node == nil:
		return nil, fmt.Errorf("node %s: %w", name, errNoNode)
	}
	return o.node, nil
}

// patchOwn changes our Node's status object, whose annotations and conditions the
// service account may write. uid guards against a Node that was created anew.
func (s *Store) patchOwn(ctx context.Context, contentType string, patch any) error {
	name, err := s.selfName(ctx)
	if err != nil {
		return err
	}
	err = s.do(ctx, func(ctx context.Context, c *client) error {
		return c.call(ctx, request{method: http.MethodPatch, path: "nodes/" + name + "/status", contentType: contentType, body: patch}, nil)
	})
	if err != nil {
		return fmt.Errorf("write status of node %s: %w", name, err)
	}
	return nil
}
