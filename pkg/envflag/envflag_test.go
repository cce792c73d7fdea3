package envflag

import (
	"flag"
	"io"
	"maps"
	"slices"
	"strings"
	"testing"
)

func TestSet(t *testing.T) {
	aliases := [][]string{{"etcd-endpoint", "etcd-endpoints"}}
	for _, test := range []struct {
		name, line, env string
		want            string // values of the flags below, in their order
		given           string
		err             string
	}{
		{"defaults", "", "", "a b 1 false", "", ""},
		{"environment", "", "FLANNELD_ETCD_ENDPOINT=x FLANNELD_PORT=2", "x b 2 false", "etcd-endpoint port", ""},
		{"command line wins", "-port=3", "FLANNELD_PORT=2", "a b 3 false", "port", ""},
		{"an alias on the command line wins", "-etcd-endpoint=y", "FLANNELD_ETCD_ENDPOINTS=x", "y b 1 false", "etcd-endpoint", ""},
		{"except", "", "FLANNELD_VERSION=true", "a b 1 false", "", ""},
		{"invalid", "", "FLANNELD_PORT=http", "a b 1 false", "port", `invalid value "http" for environment variable FLANNELD_PORT`},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, name := range []string{"ETCD_ENDPOINT", "ETCD_ENDPOINTS", "PORT", "VERSION"} {
				t.Setenv(Prefix+name, "")
			}
			for _, v := range strings.Fields(test.env) {
				name, value, _ := strings.Cut(v, "=")
				t.Setenv(name, value)
			}
			fs := flag.NewFlagSet("test", flag.ContinueOnError)
			fs.SetOutput(io.Discard)
			fs.String("etcd-endpoint", "a", "")
			fs.String("etcd-endpoints", "b", "")
			fs.Int("port", 1, "")
			fs.Bool("version", false, "")
			if err := fs.Parse(strings.Fields(test.line)); err != nil {
				t.Fatal(err)
			}
			given, err := Set(fs, aliases, "version")
			if err == nil && test.err != "" || err != nil && (test.err == "" || !strings.HasPrefix(err.Error(), test.err)) {
				t.Errorf("%v, want %q", err, test.err)
			}
			var values []string
			for _, name := range []string{"etcd-endpoint", "etcd-endpoints", "port", "version"} {
				values = append(values, fs.Lookup(name).Value.String())
			}
			if got := strings.Join(values, " "); err == nil && got != test.want {
				t.Errorf("values %q, want %q", got, test.want)
			}
			if got := strings.Join(slices.Sorted(maps.Keys(given)), " "); got != test.given {
				t.Errorf("given %q, want %q", got, test.given)
			}
		})
	}
}
