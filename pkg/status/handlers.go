package status

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	log "github.com/golang/glog"
)

//go:embed page.html
var pageText string

func (c Config) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /{$}", c.page(template.Must(template.New("page").Parse(pageText))))
	mux.Handle("GET /healthz", healthz(c.Source))
	mux.Handle("GET /readyz", readyz(c.Source))
	mux.Handle("GET /metrics", c.metrics())
	mux.Handle("GET /api/v1/status", c.api())
	return mux
}

// healthz says that the process is alive. It asks the source and leaves aside
// what that says: a daemon that is stuck gives no answer, and what an answer
// may complain of, a restart does not mend.
func healthz(source Source) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		source()
		plain(w, http.StatusOK, "ok")
	}
}

func readyz(source Source) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		if s := source(); !s.ready() {
			plain(w, http.StatusServiceUnavailable, strings.Join(s.NotReady, "\n"))
			return
		}
		plain(w, http.StatusOK, "ok")
	}
}

func (c Config) api() http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		if err := e.Encode(c.report()); err != nil {
			log.V(1).Infof("answer status request: %v", err) // the client is gone
		}
	}
}

func (c Config) page(t *template.Template) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
		if err := t.Execute(w, c.report()); err != nil {
			log.V(1).Infof("answer page request: %v", err)
		}
	}
}

// report asks the source, and gives lists that are empty rather than null.
func (c Config) report() Report {
	s := c.Source()
	if s.NotReady == nil {
		s.NotReady = []string{}
	}
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

func plain(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	fmt.Fprintln(w, text)
}
