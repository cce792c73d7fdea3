package kube

import (
	"context"
	"fmt"
	"net/http"
	"time"
)

// conditionType is the Node condition from which kube-controller-manager makes the
// taint node.kubernetes.io/network-unavailable.
const conditionType = "NetworkUnavailable"

// Condition is a state of the Node's network.
type Condition struct {
	// Unavailable: pods that come to the Node would have no network.
	Unavailable bool
	Message     string
}

// condition is a condition of a Node (core/v1).
type condition struct {
	Type               string    `json:"type"`
	Status             string    `json:"status"`
	Reason             string    `json:"reason"`
	Message            string    `json:"message"`
	LastHeartbeatTime  time.Time `json:"lastHeartbeatTime"`
	LastTransitionTime time.Time `json:"lastTransitionTime"`
}

// SetCondition makes c the condition NetworkUnavailable of our Node. The time of the
// last transition stays if the status does.
func (s *Store) SetCondition(ctx context.Context, c Condition) error {
	name, err := s.selfName(ctx)
	if err != nil {
		return err
	}
	now := time.Now().UTC().Truncate(time.Second)
	next := condition{Type: conditionType, Status: "False", Reason: "FlannelIsUp", Message: c.Message, LastHeartbeatTime: now, LastTransitionTime: now}
	if c.Unavailable {
		next.Status, next.Reason = "True", "FlannelIsNotReady"
	}
	var have struct {
		Status struct {
			Conditions []condition `json:"conditions"`
		} `json:"status"`
	}
	err = s.do(ctx, func(ctx context.Context, cl *client) error {
		return cl.call(ctx, request{method: http.MethodGet, path: "nodes/" + name}, &have)
	})
	if err != nil {
		return fmt.Errorf("read conditions of node %s: %w", name, err)
	}
	for _, h := range have.Status.Conditions {
		if h.Type != conditionType || h.Status != next.Status {
			continue
		}
		if h.Reason == next.Reason && h.Message == next.Message {
			return nil
		}
		next.LastTransitionTime = h.LastTransitionTime
	}
	// The strategic patch merges conditions by their type.
	return s.patchOwn(ctx, strategicPatch, map[string]any{"status": map[string]any{"conditions": []condition{next}}})
}

// OwnUID returns the UID of our Node as the watch saw it last; "" if it does not
// exist. Another UID is that of a Node that was created anew.
func (s *Store) OwnUID() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.own.node == nil {
		return ""
	}
	return s.own.node.Metadata.UID
}
