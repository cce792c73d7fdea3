package status

import (
	"embed"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"

	log "github.com/golang/glog"
)

// page is the web page: HTML, style and script.
//
//go:embed page
var page embed.FS

// policy lets the page load only its own files.
const policy = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

func (c Config) handler() http.Handler {
	mux := http.NewServeMux()
	for path, name := range map[string]string{"/{$}": "index.html", "/page.css": "page.css", "/page.js": "page.js"} {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Security-Policy", policy)
			w.Header().Set("X-Content-Type-Options", "nosniff")
			w.Header().Set("Cache-Control", "no-cache")
			http.ServeFileFS(w, r, page, "page/"+name)
		})
	}
	mux.HandleFunc("GET /healthz", c.Source.healthz)
	mux.HandleFunc("GET /readyz", c.Source.readyz)
	mux.Handle("GET /metrics", c.metrics())
	mux.HandleFunc("GET /api/v1/status", c.api)
	mux.Handle("GET /api/v1/stream", c.stream())
	if c.Pprof {
		mux.HandleFunc("GET /debug/pprof/", pprof.Index)
		mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
		mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	}
	return mux
}

// healthz answers 200 while the process is alive. It calls source, so that a stuck
// daemon gives no answer, but ignores the snapshot: a restart would not repair what
// the snapshot may report.
func (source Source) healthz(w http.ResponseWriter, _ *http.Request) {
	source()
	plain(w, http.StatusOK, "ok")
}

func (source Source) readyz(w http.ResponseWriter, _ *http.Request) {
	s := source()
	code, lines := http.StatusOK, []string{"ok"}
	if !s.ready() {
		code, lines = http.StatusServiceUnavailable, s.NotReady
	}
	plain(w, code, strings.Join(slices.Concat(lines, s.warnings()), "\n"))
}

func (c Config) api(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	if err := e.Encode(c.report()); err != nil {
		log.V(1).Infof("answer status request: %v", err) // the client has gone away
	}
}

// report returns the current Report, with empty lists rather than null.
func (c Config) report() Report {
	s := c.Source()
	s.NotReady = append([]string{}, s.NotReady...)
	s.Events = append([]Event{}, s.Events...)
	if s.Backend != nil {
		b := *s.Backend
		if b.Peers == nil {
			b.Peers = []Peer{}
		}
		if b.Drops == nil {
			b.Drops = map[string]uint64{}
		}
		s.Backend = &b
	}
	uptime := time.Since(c.Began) / time.Second
	return Report{Version: c.Version, UptimeSeconds: int64(uptime), Ready: s.ready(), Snapshot: s}
}

// stream sends a Report every 2 s until the client or the server ends it, as
// server-sent events (HTML standard, section 9.2).
func (c Config) stream() http.HandlerFunc {
	slots := make(chan struct{}, 16) // bounds concurrent streams
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
		tick := time.NewTicker(2 * time.Second)
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

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}
