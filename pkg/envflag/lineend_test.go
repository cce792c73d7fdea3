package envflag

import (
	"flag"
	"io"
	"strings"
	"testing"
)

// A file of variables with the line ends of another system is named as the cause.
func TestCarriageReturn(t *testing.T) {
	t.Setenv("FLANNELD_IFACE", "eth0\r")
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.String("iface", "", "")
	_, err := Set(fs, nil)
	if err == nil || !strings.Contains(err.Error(), "FLANNELD_IFACE: it ends with a carriage return") || strings.Contains(err.Error(), "\r") {
		t.Errorf("got %v", err)
	}
}
