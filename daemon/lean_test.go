package daemon

import (
	"testing"

	"github.com/prometheus/procfs"
)

// written is in a part of the program's mapping that can be written to, and
// differs from what the file has there.
var written = "as in the file"

func TestReleaseProgram(t *testing.T) {
	written = t.Name()
	resident := func() uint64 {
		p, err := procfs.Self()
		if err != nil {
			t.Fatal(err)
		}
		s, err := p.NewStatus()
		if err != nil {
			t.Fatal(err)
		}
		return s.RssFile
	}
	before := resident()
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after >= before {
		t.Errorf("%d bytes of files are resident, %d before", after, before)
	}
	if written != t.Name() {
		t.Errorf("what was written is lost: %q", written)
	}
}
