package control

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var answer = Rekeyed{netip.MustParsePrefix("10.5.1.0/24"), json.RawMessage(`{"PublicKey":"a"}`), json.RawMessage(`{"PublicKey":"b"}`)}

// run serves at path until stop is called.
func run(t *testing.T, path string, rekey RekeyFunc) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := listen(ctx, path)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	done := make(chan error, 1)
	go func() { done <- serve(ctx, ln, rekey) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestRekey(t *testing.T) {
	path := Path(filepath.Join(t.TempDir(), "run", "subnet.env"))
	if !strings.HasSuffix(path, "/run/subnet.sock") {
		t.Fatal(path)
	}
	if _, err := Rekey(t.Context(), path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a daemon: %v", err)
	}
	refused := errors.New("there is no key")
	var failure error
	stop := run(t, path, func(context.Context) (Rekeyed, error) { return answer, failure })
	got, err := Rekey(t.Context(), path)
	if err != nil || got.Subnet != answer.Subnet || string(got.After) != string(answer.After) {
		t.Errorf("%+v, %v", got, err)
	}
	failure = refused
	if _, err := Rekey(t.Context(), path); err == nil || !strings.Contains(err.Error(), refused.Error()) {
		t.Errorf("%v, want the error of the action", err)
	}
	if err := Serve(t.Context(), path, nil); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	stop()
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A running action ends with the server.
func TestStopUnderWay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	begun := make(chan struct{})
	stop := run(t, path, func(ctx context.Context) (Rekeyed, error) {
		close(begun)
		<-ctx.Done()
		return Rekeyed{}, ctx.Err()
	})
	called := make(chan error, 1)
	go func() {
		_, err := Rekey(t.Context(), path)
		called <- err
	}()
	<-begun
	stop()
	if err := <-called; err == nil {
		t.Error("a response after the end")
	}
}

// Run replaces the socket of a killed run, and no other file.
func TestLeftOver(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	run(t, path, nil)()

	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), path, nil); err == nil {
		t.Error("served in the place of a file")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "precious" {
		t.Errorf("the file is %q, %v", text, err)
	}
}
