package kube

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// Event is a message for the Node's list of events (kubectl describe node).
type Event struct {
	// Warning: something needs the administrator.
	Warning bool
	// Reason is one word in CamelCase.
	Reason, Message string
}

// objectEvent is an Event object (core/v1).
type objectEvent struct {
	Metadata           map[string]string `json:"metadata"`
	InvolvedObject     map[string]string `json:"involvedObject"`
	Reason             string            `json:"reason"`
	Message            string            `json:"message"`
	Type               string            `json:"type"`
	Source             map[string]string `json:"source"`
	FirstTimestamp     time.Time         `json:"firstTimestamp"`
	LastTimestamp      time.Time         `json:"lastTimestamp"`
	Count              int               `json:"count"`
	ReportingComponent string            `json:"reportingComponent"`
	ReportingInstance  string            `json:"reportingInstance"`
}

// component names the program in events.
const component = "flannel"

// AddEvent adds e to the events of our Node. Its service account may lack the
// right: create events.
func (s *Store) AddEvent(ctx context.Context, e Event) error {
	name, err := s.selfName(ctx)
	if err != nil {
		return err
	}
	kind := "Normal"
	if e.Warning {
		kind = "Warning"
	}
	now := time.Now().UTC().Truncate(time.Second)
	body := objectEvent{
		// Events of objects without a namespace are in "default". The UID of a Node's
		// events is its name, as the kubelet writes them.
		Metadata:       map[string]string{"generateName": name + "."},
		InvolvedObject: map[string]string{"apiVersion": "v1", "kind": "Node", "name": name, "uid": name},
		Reason:         e.Reason, Message: e.Message, Type: kind,
		Source:         map[string]string{"component": component, "host": name},
		FirstTimestamp: now, LastTimestamp: now, Count: 1,
		ReportingComponent: component, ReportingInstance: name,
	}
	err = s.do(ctx, func(ctx context.Context, c *client) error {
		return c.call(ctx, request{method: http.MethodPost, path: "namespaces/default/events", contentType: "application/json", body: body}, nil)
	})
	if err != nil {
		return fmt.Errorf("add event to node %s: %w", name, err)
	}
	return nil
}
