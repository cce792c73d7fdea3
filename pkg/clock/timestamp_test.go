package clock

import (
	"encoding/json"
	"os"
	"os/exec"
	"testing"
	"time"
)

// Only a wall clock that was set, or a reboot, makes a Timestamp out of date.
func TestTimestampStepped(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before := Timestamp{Boot: "boot", SinceBoot: time.Hour, Wall: noon}
	for name, test := range map[string]struct {
		now  Timestamp
		want bool
	}{
		"time passed":    {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon.Add(time.Hour)}, false},
		"a second off":   {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon.Add(time.Hour + time.Second)}, false},
		"clock set":      {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon.Add(2 * time.Hour)}, true},
		"clock set back": {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon}, true},
		"set at last":    {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon.Add(time.Hour), Unset: true}, true},
		"another boot":   {Timestamp{Boot: "another", SinceBoot: 2 * time.Hour, Wall: noon.Add(time.Hour)}, true},
		"zero":           {Timestamp{Boot: "boot", SinceBoot: 0, Wall: noon}, false},
	} {
		since := before
		if name == "zero" {
			since, test.want = Timestamp{}, true
		}
		if got := test.now.Stepped(since); got != test.want {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

// After a reboot the wall clock counts, if something has set it.
func TestTimestampSince(t *testing.T) {
	noon := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	before := Timestamp{Boot: "boot", SinceBoot: time.Hour, Wall: noon}
	for name, test := range map[string]struct {
		now   Timestamp
		want  time.Duration
		known bool
	}{
		"same boot":              {Timestamp{Boot: "boot", SinceBoot: 2 * time.Hour, Wall: noon.Add(-time.Hour), Unset: true}, time.Hour, true},
		"another time namespace": {Timestamp{Boot: "boot", SinceBoot: 12 * time.Hour, Offset: 10 * time.Hour, Wall: noon}, time.Hour, true},
		"another boot":           {Timestamp{Boot: "another", Wall: noon.Add(time.Hour)}, time.Hour, true},
		"clock went back":        {Timestamp{Boot: "another", Wall: noon.Add(-time.Hour)}, -time.Hour, false},
		"no battery clock":       {Timestamp{Boot: "another", Wall: noon.Add(time.Minute), Unset: true}, time.Minute, false},
	} {
		if passed, known := test.now.Since(before); passed != test.want || known != test.known {
			t.Errorf("%s: %v, %v; want %v, %v", name, passed, known, test.want, test.known)
		}
	}
}

// A process in another time namespace reads another CLOCK_BOOTTIME.
func TestTimestampInAnotherTimeNamespace(t *testing.T) {
	const output = "TIMESTAMP_OUTPUT"
	if path := os.Getenv(output); path != "" {
		text, err := json.Marshal(Now())
		if err == nil {
			err = os.WriteFile(path, text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	if _, err := os.Stat(timeNamespace); err != nil || os.Getuid() != 0 {
		t.Skipf("it takes root and a kernel with time namespaces: %v", err)
	}
	path := t.TempDir() + "/timestamp"
	cmd := exec.CommandContext(t.Context(), "unshare", "--time", "--boottime", "100000", "--fork",
		os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), output+"="+path)
	before := Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var there Timestamp
	if err := json.Unmarshal(text, &there); err != nil {
		t.Fatal(err)
	}
	if passed, known := there.Since(before); !known || passed < 0 || passed > time.Hour || there.Offset != 100000*time.Second {
		t.Errorf("%v, %v from %+v to %+v", passed, known, before, there)
	}
}
