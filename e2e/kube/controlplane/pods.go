package controlplane

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
)

// Pod is the part of a Pod that tests read.
type Pod struct {
	Metadata struct {
		Name              string `json:"name"`
		DeletionTimestamp string `json:"deletionTimestamp"`
	} `json:"metadata"`
	Spec struct {
		NodeName string `json:"nodeName"`
	} `json:"spec"`
	Status struct {
		PodIPs []struct {
			IP netip.Addr `json:"ip"`
		} `json:"podIPs"`
		ContainerStatuses []Container `json:"containerStatuses"`
	} `json:"status"`
}

// Container is the state of a container of a Pod.
type Container struct {
	ContainerID  string `json:"containerID"` // containerd://ID
	Image        string `json:"image"`
	Ready        bool   `json:"ready"`
	RestartCount int    `json:"restartCount"`
}

// Pods reads the Pods with a label that are not being deleted.
func (c *ControlPlane) Pods(namespace, label string) ([]Pod, error) {
	code, text, err := c.request(http.MethodGet, "/api/v1/namespaces/"+namespace+"/pods?labelSelector="+url.QueryEscape(label), "", nil)
	if err != nil {
		return nil, err
	}
	if code != http.StatusOK {
		return nil, fmt.Errorf("the API server answers %d: %s", code, text)
	}
	var list struct{ Items []Pod }
	if err := json.Unmarshal(text, &list); err != nil {
		return nil, err
	}
	var pods []Pod
	for _, p := range list.Items {
		if p.Metadata.DeletionTimestamp == "" {
			pods = append(pods, p)
		}
	}
	return pods, nil
}
