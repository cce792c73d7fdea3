package cli

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// doctor warns of a slow etcd, and of a clock that differs from etcd's.
func TestDoctorOfSlowStoreWithWrongClock(t *testing.T) {
	const config = `{"Network": "10.5.0.0/16"}`
	for name, fault := range map[string]struct {
		delay, ahead   time.Duration
		check, verdict string
		words          string
	}{
		"well":  {0, 0, "etcd", verdictOK, "network 10.5.0.0/16, backend udp"},
		"slow":  {slowStore + 50*time.Millisecond, 0, "etcd", verdictWarn, "which is slow"},
		"clock": {0, 37*time.Minute + 30*time.Second, "clock", verdictWarn, "differs by 37m"},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-time.After(fault.delay):
				case <-r.Context().Done():
				}
				w.Header().Set("Date", time.Now().Add(fault.ahead).UTC().Format(http.TimeFormat))
				w.Header().Set("X-Etcd-Index", "1")
				switch r.URL.Path {
				case "/version":
					fmt.Fprint(w, `{"etcdserver":"2.3.8","etcdcluster":"2.3.0"}`)
				case "/v2/keys/coreos.com/network/config":
					fmt.Fprintf(w, `{"action":"get","node":{"key":"/coreos.com/network/config","value":%q,"modifiedIndex":1,"createdIndex":1}}`, config)
				default:
					http.NotFound(w, r)
				}
			}))
			defer server.Close()
			_, out, errs := call(t, "doctor", "-json", "-status-addr=", "-etcd-api=2", "-etcd-endpoints="+server.URL)
			var found []finding
			if err := json.Unmarshal([]byte(out), &found); err != nil {
				t.Fatalf("%v in\n%s%s", err, out, errs)
			}
			for _, f := range found {
				if f.Check != fault.check {
					continue
				}
				if f.Verdict != fault.verdict || !strings.Contains(f.Found, fault.words) || f.Verdict != verdictOK && f.Fix == "" {
					t.Errorf("%+v, want %s and %q", f, fault.verdict, fault.words)
				}
				return
			}
			t.Errorf("no check of %s in\n%s", fault.check, out)
		})
	}
}

// The table has one line for each check, and one for its fix.
func TestDoctorPrintsLines(t *testing.T) {
	_, out, errs := call(t, "doctor", "-status-addr=", "-etcd-endpoints=http://127.0.0.1:1", "-timeout=300ms")
	if errs != "" || !strings.Contains(out, "fail  etcd ") {
		t.Errorf("%s%s", out, errs)
	}
	for line := range strings.Lines(out) {
		if verdict, _, _ := strings.Cut(line, " "); verdict != "" && verdict != verdictOK && verdict != verdictWarn && verdict != verdictFail {
			t.Errorf("a line without a verdict: %q", line)
		}
	}
}
