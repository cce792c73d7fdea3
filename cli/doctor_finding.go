package cli

import "fmt"

// Verdicts of a check.
const (
	verdictOK   = "ok"
	verdictWarn = "warn"
	verdictFail = "fail"
)

// finding is the result of a check. It has no verdict if the check does not
// apply.
type finding struct {
	Check   string `json:"check"`
	Verdict string `json:"verdict"` // ok, warn, fail
	// Found is the state and its consequence; Fix is the command that changes it.
	Found string `json:"found"`
	Fix   string `json:"fix,omitempty"`
}

func okay(format string, args ...any) finding {
	return finding{Verdict: verdictOK, Found: fmt.Sprintf(format, args...)}
}

func warn(fix, format string, args ...any) finding {
	return finding{Verdict: verdictWarn, Fix: fix, Found: fmt.Sprintf(format, args...)}
}

func failed(fix, format string, args ...any) finding {
	return finding{Verdict: verdictFail, Fix: fix, Found: fmt.Sprintf(format, args...)}
}
