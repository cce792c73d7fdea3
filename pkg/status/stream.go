package status

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	log "github.com/golang/glog"
)

// streamEvery is the interval between two reports of a stream.
const streamEvery = 2 * time.Second

// maxStreams bounds concurrent streams.
const maxStreams = 16

// stream sends a Report every 2 s until the client or the server ends it, as
// server-sent events (HTML standard, section 9.2).
func (c Config) stream() http.HandlerFunc {
	slots := make(chan struct{}, maxStreams)
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case slots <- struct{}{}:
			defer func() { <-slots }()
		default:
			plain(w, http.StatusServiceUnavailable, "too many pages are open")
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("Cache-Control", "no-store")
		out := http.NewResponseController(w)
		tick := time.NewTicker(streamEvery)
		defer tick.Stop()
		for {
			if err := c.sendEvent(w, out); err != nil {
				log.V(1).Infof("answer stream request: %v", err) // the client has gone away
				return
			}
			select {
			case <-tick.C:
			case <-r.Context().Done():
				return
			}
		}
	}
}

func (c Config) sendEvent(w http.ResponseWriter, out *http.ResponseController) error {
	data, err := json.Marshal(c.report())
	if err != nil {
		return err
	}
	// The server's limit is for answers of one report.
	if err := out.SetWriteDeadline(time.Now().Add(answerLimit)); err != nil {
		return err
	}
	if _, err := fmt.Fprintf(w, "data: %s\n\n", data); err != nil {
		return err
	}
	return out.Flush()
}
