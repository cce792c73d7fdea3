package status

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
)

// shots names a folder that the pictures of the page go to, for a person to
// look at; empty: none are kept.
const shots = "FLANNEL_SCREENSHOTS"

// browser is a tab of headless Chromium.
func browser(t *testing.T) context.Context {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("no chromium: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU)
	alloc, stop := chromedp.NewExecAllocator(t.Context(), options...)
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	limited, end := context.WithTimeout(ctx, 3*time.Minute)
	t.Cleanup(end)
	return limited
}

func do(t *testing.T, ctx context.Context, actions ...chromedp.Action) {
	t.Helper()
	if err := chromedp.Run(ctx, actions...); err != nil {
		t.Fatal(err)
	}
}

// screenshot keeps a picture of the page, and holds it to its width.
func screenshot(t *testing.T, ctx context.Context, name string, width int64, scheme string) {
	t.Helper()
	var wide bool
	var png []byte
	do(t, ctx,
		emulation.SetDeviceMetricsOverride(width, 900, 1, false),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth`, &wide),
		chromedp.FullScreenshot(&png, 100),
	)
	if wide {
		t.Errorf("%s: the page is wider than %d pixels", name, width)
	}
	if dir := os.Getenv(shots); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// many is a daemon with n peers: most answer, some are lossy, some are silent.
func many(n int) Snapshot {
	s := working()
	s.HeldPeers, s.ConfigRefused = 0, ""
	s.Lease.ExpiresAt = time.Now().Add(23 * time.Hour)
	s.Store.Since = time.Now().Add(-50 * time.Hour)
	s.Backend.Peers = nil
	s.Events = []Event{
		{time.Now(), "peers do not answer through the overlay count=1 subnets=[10.5.10.0/24]"},
		{time.Now().Add(-time.Minute), "peers joined count=2 subnets=[10.5.10.0/24 10.5.11.0/24]"},
		{time.Now().Add(-time.Hour), "the network is complete"},
	}
	for i := range n {
		p := Peer{
			Subnet:   netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", 5+i/250, 10+i%240)),
			PublicIP: netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(1 + i%250)}),
			TxBytes:  uint64(i) * 123456, RxBytes: uint64(i) * 234567,
			Probe: &Probe{RTTSeconds: 0.0002 + float64(i)/1e5, MTU: 1472, Since: time.Now().Add(-time.Hour)},
		}
		switch i % 11 {
		case 7:
			p.Probe.Loss = 0.15
		case 0:
			p.Probe.Silent, p.Probe.Loss = true, 1
		}
		s.Backend.Peers = append(s.Backend.Peers, p)
	}
	return s
}

func TestPageInBrowser(t *testing.T) {
	ctx := browser(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var state atomic.Pointer[Snapshot]
	set := func(s Snapshot) { state.Store(&s) }
	set(starting())
	var traffic atomic.Uint64
	c := config(Snapshot{})
	c.Source = func() Snapshot {
		s := *state.Load()
		if s.Backend != nil && len(s.Backend.Peers) > 0 {
			b := *s.Backend
			b.Peers = append([]Peer(nil), b.Peers...)
			n := traffic.Add(1)
			b.Peers[0].TxBytes += n * 300_000 * (2 + n%3)
			b.Peers[0].RxBytes += n * 500_000 * (2 + n%2)
			s.Backend = &b
		}
		return s
	}
	serving, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- New(c).serve(serving, ln) }()

	do(t, ctx, chromedp.Navigate("http://"+ln.Addr().String()+"/"), until(`state.textContent === "not ready" && missing.textContent.includes("no lease yet")`))
	set(many(12))
	do(t, ctx, until(`state.textContent === "ready, 2 silent" && document.querySelectorAll("#rows tr").length === 12`),
		until(`rates.tx.length > 3`))
	screenshot(t, ctx, "desktop", 1280, "light")
	screenshot(t, ctx, "dark", 1280, "dark")
	screenshot(t, ctx, "phone", 360, "light")
	screenshot(t, ctx, "phone-dark", 360, "dark")

	// With the keyboard: the first stop skips to the peers.
	do(t, ctx, chromedp.KeyEvent("\t"), until(`document.activeElement.className === "skip"`))

	set(many(1000))
	do(t, ctx, until(`map.childNodes.length === 1000 && range.textContent === "1–50 of 1000"`),
		chromedp.Click("#next"), until(`range.textContent === "51–100 of 1000"`),
		chromedp.Click("#faulty"), until(`range.textContent.startsWith("1–50 of 18")`),
		chromedp.SendKeys("#find", "10.5.17."), until(`document.querySelectorAll("#rows tr").length === 1`),
		chromedp.Evaluate(`find.value = ""; faulty.click()`, nil))
	screenshot(t, ctx, "thousand", 1280, "light")
	var spent float64
	do(t, ctx, chromedp.Evaluate(`(() => { const t = performance.now(); for (let i = 0; i < 20; i++) show(last); return (performance.now() - t) / 20 })()`, &spent))
	t.Logf("1,000 peers are shown in %.1f ms", spent)
	var outside []string
	do(t, ctx, chromedp.Evaluate(`performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith(location.origin))`, &outside))
	if len(outside) > 0 {
		t.Errorf("the page loads %s", strings.Join(outside, ", "))
	}

	set(many(12))
	do(t, ctx, until(`map.childNodes.length === 12`))
	stop()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	do(t, ctx, until(`state.textContent === "daemon gone" && !gone_.hidden`))
	screenshot(t, ctx, "gone", 1280, "light")
}

// until waits for a condition over the page's elements, by their ids.
func until(condition string) chromedp.Action {
	return chromedp.Poll(`(() => { const [state, missing, map, range, gone_] = ["state", "missing", "map", "range", "gone"].map(id => document.getElementById(id)); return `+condition+` })()`,
		nil, chromedp.WithPollingTimeout(time.Minute))
}
