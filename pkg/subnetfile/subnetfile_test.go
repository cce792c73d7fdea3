package subnetfile

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func sample() Env {
	return Env{Network: prefix("10.5.0.0/16"), Subnet: prefix("10.5.72.0/24"), MTU: 1472}
}

const sampleText = "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1472\nFLANNEL_IPMASQ=false\n"

func TestWrite(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	path := filepath.Join(t.TempDir(), "flannel", "subnet.env")
	for range 2 { // the second replaces the first
		if err := Write(path, sample()); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != sampleText {
		t.Errorf("file has\n%s\nwant\n%s", got, sampleText)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644 whatever the umask", info.Mode(), err)
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v; want the file alone", entries, err)
	}
}

// The lines of a family are there only if the host has a subnet of it; the order is
// that of other generations of flannel. All is read back.
func TestFamilies(t *testing.T) {
	const v4, v6 = "FLANNEL_NETWORK=10.42.0.0/16\nFLANNEL_SUBNET=10.42.3.1/24\n", "FLANNEL_IPV6_NETWORK=fd00:42::/56\nFLANNEL_IPV6_SUBNET=fd00:42:0:3::1/64\n"
	const rest = "FLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
	both := Env{Network: prefix("10.42.0.0/16"), Subnet: prefix("10.42.3.0/24"),
		IPv6Network: prefix("fd00:42::/56"), IPv6Subnet: prefix("fd00:42:0:3::/64"), MTU: 1450, IPMasq: true}
	only4, only6 := both, both
	only4.IPv6Network, only4.IPv6Subnet = netip.Prefix{}, netip.Prefix{}
	only6.Network, only6.Subnet = netip.Prefix{}, netip.Prefix{}
	for text, env := range map[string]Env{v4 + v6 + rest: both, v4 + rest: only4, v6 + rest: only6} {
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := Write(path, env); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("file has\n%s, %v; want\n%s", got, err, text)
		}
		if got, err := Read(path); err != nil || got != env {
			t.Errorf("Read = %+v, %v; want %+v", got, err, env)
		}
	}
	half := both
	half.IPv6Network = netip.Prefix{}
	for _, wrong := range []Env{half, {MTU: 1450}} {
		if err := Write(filepath.Join(t.TempDir(), "subnet.env"), wrong); err == nil {
			t.Errorf("Write of %+v gives no error", wrong)
		}
	}
}

// TestWriteReplaces holds the old file open, whose content must not change.
func TestWriteReplaces(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	old, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer old.Close()
	if err := Write(path, sample()); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 16)
	if n, _ := old.Read(buf); string(buf[:n]) != "old" {
		t.Errorf("the old file was written in place: %q", buf[:n])
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v, %v; want 0644 whatever the old file had", info.Mode(), err)
	}
}

func TestWriteErrors(t *testing.T) {
	dir := t.TempDir()
	target := filepath.Join(dir, "folder")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Write(target, sample()); err == nil {
		t.Error("Write over a folder gave no error")
	}
	if err := Write(filepath.Join(dir, "e"), Env{Network: prefix("10.5.0.0/16")}); err == nil {
		t.Error("Write without a subnet gave no error")
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("folder holds %v, %v; want no temporary file", entries, err)
	}
}

func TestSourcedBySh(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if err := Write(path, sample()); err != nil {
		t.Fatal(err)
	}
	const script = `set -eu; . "$1"; echo "$FLANNEL_NETWORK $FLANNEL_SUBNET $FLANNEL_MTU $FLANNEL_IPMASQ"`
	out, err := exec.Command("sh", "-c", script, "sh", path).CombinedOutput()
	if err != nil || string(out) != "10.5.0.0/16 10.5.72.1/24 1472 false\n" {
		t.Errorf("sh says %q, %v", out, err)
	}
}

func TestFirstUsable(t *testing.T) {
	for in, want := range map[string]string{
		"10.5.72.0/24": "10.5.72.1/24", "10.5.72.9/24": "10.5.72.1/24",
		"10.5.72.4/31": "10.5.72.5/31", "10.5.72.4/32": "10.5.72.4/32", "fd00::/64": "fd00::1/64",
	} {
		if got := FirstUsable(prefix(in)); got != prefix(want) {
			t.Errorf("FirstUsable(%s) = %v, want %s", in, got, want)
		}
	}
}

func TestRead(t *testing.T) {
	full := sample()
	masq := full
	masq.IPMasq = true
	for name, tt := range map[string]struct {
		text string
		want Env
	}{
		"ours":             {sampleText, full},
		"subnet only":      {"FLANNEL_SUBNET=10.5.72.1/24", Env{Subnet: full.Subnet}},
		"crlf and blanks":  {"\r\n\r\n  FLANNEL_SUBNET = 10.5.72.1/24 \r\n\n", Env{Subnet: full.Subnet}},
		"export":           {"export FLANNEL_SUBNET=10.5.72.1/24\n", Env{Subnet: full.Subnet}},
		"quotes":           {strings.ReplaceAll(sampleText, "=10.5.72.1/24", `="10.5.72.1/24"`), full},
		"joined pieces":    {strings.ReplaceAll(sampleText, "=10.5.72.1/24", `='10.5'."72".1\/24`), full},
		"continued line":   {strings.ReplaceAll(sampleText, "72.1", "72\\\n.1"), full},
		"comments":         {"# don't: A='\n; B=\"\n" + sampleText, full},
		"last one counts":  {"FLANNEL_SUBNET=10.5.1.1/24\n" + sampleText, full},
		"foreign keys":     {sampleText + "FLANNEL_IPV7_SUBNET=fd00::1/64\nA\nB=\n", full},
		"ours inside text": {sampleText + "NOTE='\nFLANNEL_SUBNET=10.5.1.1/24\n'\n", full},
		"escaped quote":    {"NOTE=\"\\\"\"\n" + strings.ReplaceAll(sampleText, "false", "true"), masq},
		"literal slashes":  {"NOTE='\\'\nOTHER=\"\\d\"\n" + sampleText, full},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "subnet.env")
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			got, err := Read(path)
			if err != nil || got != tt.want {
				t.Errorf("Read = %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestReadErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if _, err := Read(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v, want fs.ErrNotExist", err)
	}
	for name, tt := range map[string]struct{ text, want string }{
		"empty":            {"", "no FLANNEL_SUBNET"},
		"binary":           {"\x00\xff\x00", "no FLANNEL_SUBNET"},
		"cut off":          {"FLANNEL_SUBNET=10.5.7", "parse FLANNEL_SUBNET="},
		"bad network":      {"FLANNEL_NETWORK=x\n" + "FLANNEL_SUBNET=10.5.72.1/24", "parse FLANNEL_NETWORK="},
		"negative mtu":     {"FLANNEL_MTU=-1\n" + "FLANNEL_SUBNET=10.5.72.1/24", "parse FLANNEL_MTU="},
		"bad masq":         {"FLANNEL_IPMASQ=maybe\n" + "FLANNEL_SUBNET=10.5.72.1/24", "parse FLANNEL_IPMASQ="},
		"unfinished quote": {"NOTE='\n" + sampleText, "unterminated quote"},
		"too long":         {strings.Repeat("\n", maxSize) + sampleText, "longer than"},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.WriteFile(path, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			e, err := Read(path)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("Read = %+v, %v; want an error with %q and the path", e, err, tt.want)
			}
		})
	}
}

// FuzzRead checks that Read never panics, and that Write and Read keep what it
// returns.
func FuzzRead(f *testing.F) {
	f.Add(sampleText)
	f.Add("export FLANNEL_SUBNET='10.5.72.1'\"/24\"\\\n\nFLANNEL_NETWORK=10.5.0.0/16")
	f.Add("A=\"\\")
	f.Fuzz(func(t *testing.T, text string) {
		e, err := parse(text)
		if err != nil || !e.Network.IsValid() {
			return
		}
		path := filepath.Join(t.TempDir(), "subnet.env")
		if err := Write(path, e); err != nil {
			t.Fatal(err)
		}
		if again, err := Read(path); err != nil || again != e {
			t.Errorf("Read = %+v, %v after Write of %+v", again, err, e)
		}
	})
}

// Write does not replace a pipe by a file.
func TestWriteRefusesWhatIsNoFile(t *testing.T) {
	e := Env{Network: netip.MustParsePrefix("10.5.0.0/16"), Subnet: netip.MustParsePrefix("10.5.7.0/24"), MTU: 1472}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(pipe, e); err == nil {
		t.Error("a pipe was replaced")
	}
	if i, err := os.Lstat(pipe); err != nil || i.Mode()&os.ModeNamedPipe == 0 {
		t.Errorf("the pipe is now %v, %v", i, err)
	}
}

func TestVariables(t *testing.T) {
	path := filepath.Join(t.TempDir(), "subnet.env")
	if err := os.WriteFile(path, []byte("FLANNEL_NETWORK=10.5.0.0/16,10.6.0.0/16\nOTHER='a b'\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	vars, err := Variables(path)
	if err != nil || len(vars) != 2 || vars["FLANNEL_NETWORK"] != "10.5.0.0/16,10.6.0.0/16" || vars["OTHER"] != "a b" {
		t.Errorf("Variables = %q, %v", vars, err)
	}
}
