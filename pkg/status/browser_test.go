package status

import (
	"context"
	"fmt"
	"math"
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

// shots names the environment variable with a folder for screenshots of the page;
// empty: no screenshots.
const shots = "FLANNEL_SCREENSHOTS"

// browser returns a tab of headless Chromium.
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

// contrast lists the pairs of text and background whose contrast (WCAG 2.2, success
// criterion 1.4.3) is less than 4.5.
const contrast = `(() => {
	const style = getComputedStyle(document.documentElement);
	const light = name => {
		const hex = style.getPropertyValue("--" + name).trim().slice(1), full = hex.length === 3 ? [...hex].map(c => c + c).join("") : hex;
		const [r, g, b] = [0, 2, 4].map(i => parseInt(full.slice(i, i + 2), 16) / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const bad = [];
	for (const ground of ["bg", "card"]) for (const text of ["ink", "dim", "ok", "warn", "bad", "accent"]) {
		const [a, b] = [light(ground), light(text)].sort((x, y) => y - x), ratio = (a + 0.05) / (b + 0.05);
		if (!(ratio >= 4.5)) bad.push(text + " on " + ground + " " + ratio.toFixed(2));
	}
	return bad.join(", ");
})()`

// screenshot checks the page's width and contrast, and writes a screenshot.
func screenshot(t *testing.T, ctx context.Context, name string, width int64, scheme string) {
	t.Helper()
	var wide bool
	var dim string
	var png []byte
	do(t, ctx,
		emulation.SetDeviceMetricsOverride(width, 900, 1, false),
		emulation.SetEmulatedMedia().WithFeatures([]*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}),
		chromedp.Evaluate(`document.documentElement.scrollWidth > innerWidth || [...document.querySelectorAll("table, td, figcaption")].some(e => e.scrollWidth > e.clientWidth + 1)`, &wide),
		chromedp.Evaluate(contrast, &dim),
		chromedp.FullScreenshot(&png, 100),
	)
	if dim != "" {
		t.Errorf("%s: too little contrast, WCAG 2.2 requires 4.5: %s", name, dim)
	}
	if wide {
		t.Errorf("%s: the page is wider than %d pixels", name, width)
	}
	if dir := os.Getenv(shots); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
			t.Error(err)
		}
	}
}

// many returns a snapshot with n peers: most answer, some are lossy, some silent.
func many(n int) Snapshot {
	s := working()
	s.HeldPeers, s.ConfigRefused = 0, ""
	s.Lease.ExpiresAt = time.Now().Add(23 * time.Hour)
	s.Store.Since = time.Now().Add(-50 * time.Hour)
	s.Backend.Peers = nil
	s.Events = []Event{
		{time.Now(), "Peer 10.5.10.0/24 does not answer through the overlay."},
		{time.Now().Add(-time.Minute), "2 peers joined: 10.5.10.0/24, 10.5.11.0/24."},
		{time.Now().Add(-25 * time.Hour), "The network is complete."},
	}
	for i := range n {
		p := Peer{
			Subnet:   netip.MustParsePrefix(fmt.Sprintf("10.%d.%d.0/24", 5+i/250, 10+i%240)),
			PublicIP: netip.AddrFrom4([4]byte{192, 0, byte(2 + i/250), byte(1 + i%250)}),
			TxBytes:  uint64(i) * 123456, RxBytes: uint64(i) * 234567,
			Probe: &Probe{RTTSeconds: 0.0002 * math.Pow(1.7, float64(i%9)), MTU: 1472, Since: time.Now().Add(-time.Hour)},
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

// traffic is a source whose first peer sends and receives more at each snapshot.
type traffic struct {
	current atomic.Pointer[Snapshot]
	calls   atomic.Uint64
}

func (f *traffic) set(s Snapshot) { f.current.Store(&s) }

func (f *traffic) snapshot() Snapshot {
	s := *f.current.Load()
	if s.Backend == nil || len(s.Backend.Peers) == 0 {
		return s
	}
	b := *s.Backend
	b.Peers = append([]Peer(nil), b.Peers...)
	n := f.calls.Add(1)
	b.Peers[0].TxBytes += n*900_000 + n%3*400_000
	b.Peers[0].RxBytes += n*1_700_000 + n%2*500_000
	s.Backend = &b
	return s
}

func TestPageInBrowser(t *testing.T) {
	ctx := browser(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	state := new(traffic)
	state.set(starting())
	c := config(Snapshot{})
	c.Source = state.snapshot
	points := 3
	if os.Getenv(shots) != "" {
		points = 20 // a full chart
	}
	serving, stop := context.WithCancel(t.Context())
	ran := make(chan error, 1)
	go func() { ran <- New(c).serve(serving, ln) }()

	do(t, ctx, chromedp.Navigate("http://"+ln.Addr().String()+"/"), until(`state.textContent === "not ready" && missing.textContent.includes("no lease yet")`))
	state.set(many(12))
	do(t, ctx, until(`state.textContent === "ready, 2 of 12 peers not reached" && document.querySelectorAll("#rows tr").length === 12`),
		until(fmt.Sprintf(`rates.tx.length > %d`, points)))
	screenshot(t, ctx, "phone", 360, "light")
	screenshot(t, ctx, "phone-dark", 360, "dark")
	screenshot(t, ctx, "dark", 1280, "dark")
	screenshot(t, ctx, "desktop", 1280, "light")

	// The first tab stop skips to the peers. Each stop has a visible outline.
	for _, stop := range []string{"skip", "find", "sort", "faulty", "SUMMARY", "events", "metrics"} {
		do(t, ctx, chromedp.KeyEvent("\t"), until(`(e => [e.className, e.id, e.tagName, e.getAttribute("href")].includes("`+stop+`") && getComputedStyle(e).outlineStyle !== "none")(document.activeElement)`))
	}
	do(t, ctx, chromedp.SetValue("#sort", "rtt"), chromedp.Evaluate(`table()`, nil),
		until(`rows.children[0].children[1].textContent === "10.5.18.0/24"`),
		chromedp.SetValue("#sort", "state"), chromedp.Evaluate(`table()`, nil),
		until(`rows.children[2].children[0].textContent === "▲ loss"`), chromedp.SetValue("#sort", "subnet"))

	state.set(many(1000))
	do(t, ctx, until(`map.childNodes.length === 1000 && range.textContent === "1–50 of 1000"`),
		chromedp.Click("#next"), until(`range.textContent === "51–100 of 1000"`),
		chromedp.Click("#faulty"), until(`range.textContent.startsWith("1–50 of 18")`),
		chromedp.SendKeys("#find", "10.5.17."), until(`document.querySelectorAll("#rows tr").length === 1`),
		chromedp.Evaluate(`$("find").value = ""; $("faulty").click()`, nil))
	screenshot(t, ctx, "thousand", 1280, "light")
	var spent float64
	do(t, ctx, chromedp.Evaluate(`(() => { const t = performance.now(); for (let i = 0; i < 20; i++) show(last); return (performance.now() - t) / 20 })()`, &spent))
	t.Logf("1,000 peers are shown in %.1f ms", spent)
	var outside []string
	do(t, ctx, chromedp.Evaluate(`performance.getEntriesByType("resource").map(e => e.name).filter(n => !n.startsWith(location.origin))`, &outside))
	if len(outside) > 0 {
		t.Errorf("the page loads %s", strings.Join(outside, ", "))
	}

	state.set(many(12))
	do(t, ctx, until(`map.childNodes.length === 12`))
	stop()
	if err := <-ran; err != nil {
		t.Errorf("Run: %v", err)
	}
	do(t, ctx, until(`state.textContent === "daemon not answering" && !gone_.hidden`))
	screenshot(t, ctx, "gone", 1280, "light")
}

// until waits for a condition over the page's elements, by their ids.
func until(condition string) chromedp.Action {
	return chromedp.Poll(`(() => { const [state, missing, map, range, gone_, rows] = ["state", "missing", "map", "range", "gone", "rows"].map(id => document.getElementById(id)); return `+condition+` })()`,
		nil, chromedp.WithPollingTimeout(time.Minute))
}
