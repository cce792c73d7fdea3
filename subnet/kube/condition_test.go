package kube

import (
	"testing"
	"time"

	"github.com/coreos/flannel/subnet/subnettest/kubeapi"
)

// conditionOf returns the condition NetworkUnavailable of our Node.
func conditionOf(t *testing.T, s *kubeapi.Server) kubeapi.Object {
	t.Helper()
	status, _ := s.Node(self)["status"].(kubeapi.Object)
	all, _ := status["conditions"].([]any)
	if len(all) != 1 {
		t.Fatalf("conditions are %v, want one", all)
	}
	return all[0].(kubeapi.Object)
}

func TestSetCondition(t *testing.T) {
	s := kubeapi.Start(t)
	s.PutNode(self, nil, "10.5.3.0/24")
	k, requests := open(t, s)
	set := func(c Condition) kubeapi.Object {
		t.Helper()
		if err := k.SetCondition(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		return conditionOf(t, s)
	}
	up := set(Condition{Message: "Flannel is running on this node"})
	for key, want := range map[string]string{"type": "NetworkUnavailable", "status": "False", "reason": "FlannelIsUp", "message": "Flannel is running on this node"} {
		if up[key] != want {
			t.Errorf("%s is %v, want %s", key, up[key], want)
		}
	}
	before := requests.Load()
	set(Condition{Message: "Flannel is running on this node"})
	if n := requests.Load() - before; n != 1 {
		t.Errorf("%d requests where nothing changes, want the one that reads", n)
	}
	down := set(Condition{Unavailable: true, Message: "no route"})
	if down["status"] != "True" || down["message"] != "no route" || down["reason"] != "FlannelIsNotReady" {
		t.Errorf("condition is %v", down)
	}
	old := condition{Type: conditionType, Status: "True", LastTransitionTime: time.Unix(0, 0).UTC()}
	if err := k.patchOwn(t.Context(), strategicPatch, map[string]any{"status": map[string]any{"conditions": []condition{old}}}); err != nil {
		t.Fatal(err)
	}
	if still := set(Condition{Unavailable: true, Message: "no device"}); still["lastTransitionTime"] != "1970-01-01T00:00:00Z" || still["message"] != "no device" {
		t.Errorf("condition is %v: the status is as it was", still)
	}
	if again := set(Condition{}); again["lastTransitionTime"] == "1970-01-01T00:00:00Z" {
		t.Errorf("condition is %v: the status is another", again)
	}
}

func TestAddEvent(t *testing.T) {
	s := kubeapi.Start(t)
	k, _ := open(t, s)
	if err := k.AddEvent(t.Context(), Event{Warning: true, Reason: "FlannelNotReady", Message: "no route"}); err != nil {
		t.Fatal(err)
	}
	events := s.Events()
	if len(events) != 1 {
		t.Fatalf("events are %v", events)
	}
	about, _ := events[0]["involvedObject"].(kubeapi.Object)
	if events[0]["type"] != "Warning" || events[0]["message"] != "no route" || about["kind"] != "Node" || about["name"] != self {
		t.Errorf("event is %v", events[0])
	}
}
