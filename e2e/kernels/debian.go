package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// debian gets kernels and the root disk from Debian's archive, through apt with
// lists of its own. The host's sources stay as they are.
type debian struct {
	dir     string
	updated bool
}

// suites are those with a kernel of their own, by the archive's folder.
var suites = map[string][]string{
	"debian":          {"bullseye", "bookworm", "bookworm-backports", "trixie", "trixie-backports", "sid"},
	"debian-security": {"bullseye-security", "bookworm-security", "trixie-security"},
}

// errNoKernel is the error for a line that no suite serves.
var errNoKernel = errors.New("no suite of Debian serves it")

// apt runs a program of apt.
func (d *debian) apt(ctx context.Context, dir, program string, args ...string) (string, error) {
	at := filepath.Join(d.dir, "apt")
	return shell(ctx, dir, program, append([]string{
		"-o", "Dir::Etc::sourcelist=" + filepath.Join(at, "sources.list"), "-o", "Dir::Etc::sourceparts=-",
		"-o", "Dir::State::lists=" + filepath.Join(at, "lists"), "-o", "Dir::Cache=" + filepath.Join(at, "cache"),
		"-o", "APT::Sandbox::User=root", "-qq",
	}, args...)...)
}

// update gets the lists of all suites, once a day at most.
func (d *debian) update(ctx context.Context) error {
	if d.updated {
		return nil
	}
	at := filepath.Join(d.dir, "apt")
	for _, dir := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(at, dir), 0o755); err != nil {
			return err
		}
	}
	var sources strings.Builder
	for archive, all := range suites {
		for _, suite := range all {
			fmt.Fprintf(&sources, "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/%s %s main\n", archive, suite)
		}
	}
	list := filepath.Join(at, "sources.list")
	info, err := os.Stat(list)
	if err != nil || time.Since(info.ModTime()) > 24*time.Hour {
		if err := os.WriteFile(list, []byte(sources.String()), 0o644); err != nil {
			return err
		}
		if _, err := d.apt(ctx, "", "apt-get", "update"); err != nil {
			return errors.Join(err, os.Remove(list))
		}
	}
	d.updated = true
	return nil
}

// image returns the package of the newest kernel of a line. "6.1-cloud" is the cloud
// flavour.
func (d *debian) image(ctx context.Context, line string) (string, error) {
	if err := d.update(ctx); err != nil {
		return "", err
	}
	number, flavour := line, "amd64"
	if cloud, is := strings.CutSuffix(line, "-cloud"); is {
		number, flavour = cloud, "cloud-amd64"
	}
	out, err := d.apt(ctx, "", "apt-cache", "search", "--names-only", "^linux-image-"+regexp.QuoteMeta(number)+"[.].*-"+flavour+"$")
	if err != nil {
		return "", err
	}
	newest := ""
	for l := range strings.Lines(out) {
		name, _, _ := strings.Cut(l, " ")
		release, ours := strings.CutSuffix(strings.TrimPrefix(name, "linux-image-"), "-"+flavour)
		if ours && !strings.Contains(release, "-rt") && !strings.HasSuffix(release, "-cloud") && (newest == "" || older(newest, name)) {
			newest = name
		}
	}
	if newest == "" {
		return "", errNoKernel
	}
	return newest, nil
}

var number = regexp.MustCompile(`\d+`)

// older compares names of packages by their numbers: 6.1.0-9 is older than 6.1.0-57.
func older(a, b string) bool {
	as, bs := number.FindAllString(a, -1), number.FindAllString(b, -1)
	return slices.CompareFunc(as, bs, func(a, b string) int {
		return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
	}) < 0
}

// guestPackages are the tools of the tests.
var guestPackages = []string{
	"mount", "util-linux", "kmod", "procps", "curl", "iproute2", "iputils-ping", "iperf3", "ethtool", "tcpdump", "nftables",
	"iptables", "ipset", "conntrack", "wireguard-tools", "bpftool", "etcd-server", "etcd-client", "python3", "containernetworking-plugins",
}

// root returns the root disk of the guests: a Debian with the tools of the tests.
func (d *debian) root(ctx context.Context) (string, error) {
	disk := filepath.Join(d.dir, "root.ext4")
	stamp := strings.Join(guestPackages, ",") + "\n" + initScript
	if had, err := os.ReadFile(disk + ".stamp"); err == nil && string(had) == stamp {
		return disk, nil
	}
	work, err := os.MkdirTemp(d.dir, "root-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "tree")
	// In the tree, mmdebstrap mounts /dev/shm of the host. RemoveAll must not see it.
	if _, err := shell(ctx, "", "unshare", "--mount", "mmdebstrap", "--quiet", "--variant=apt", "--include="+strings.Join(guestPackages, ","),
		`--aptopt=APT::Install-Recommends "false"`, `--customize-hook=rm -rf "$1"/var/cache/apt "$1"/var/lib/apt/lists "$1"/usr/share/doc "$1"/usr/share/man`,
		"bookworm", tree); err != nil {
		return "", err
	}
	for _, dir := range []string{"job", "usr/lib/modules"} {
		if err := os.MkdirAll(filepath.Join(tree, dir), 0o755); err != nil {
			return "", err
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "sbin/guest-init"), []byte(initScript), 0o755); err != nil {
		return "", err
	}
	if err := makeDisk(ctx, disk, tree, 300); err != nil {
		return "", err
	}
	return disk, os.WriteFile(disk+".stamp", []byte(stamp), 0o644)
}

// makeDisk makes a file system with the content of a folder, and some MiB of room. An
// interrupted one leaves no disk.
func makeDisk(ctx context.Context, disk, tree string, room int) error {
	size, err := shell(ctx, "", "du", "-sm", tree)
	if err != nil {
		return err
	}
	var used int
	if _, err := fmt.Sscan(size, &used); err != nil {
		return fmt.Errorf("read size of %s: %w", tree, err)
	}
	unfinished := disk + ".unfinished"
	defer os.Remove(unfinished)
	if _, err := shell(ctx, "", "mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-m", "0", "-d", tree, unfinished, fmt.Sprintf("%dM", used*11/10+room)); err != nil {
		return err
	}
	return os.Rename(unfinished, disk)
}
