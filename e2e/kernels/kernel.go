package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	_ "embed"
)

// kernel is a line's kernel, ready to boot.
type kernel struct {
	line, release string
	dir           string // with the files below
	config        string // the kernel's configuration
}

func (k kernel) vmlinuz() string    { return filepath.Join(k.dir, "vmlinuz") }
func (k kernel) initrd() string     { return filepath.Join(k.dir, "initrd") }
func (k kernel) configFile() string { return filepath.Join(k.dir, "config") }
func (k kernel) modules() string    { return filepath.Join(k.dir, "modules.ext4") }

// has reports whether the kernel has a feature. The feature is an option of the
// configuration, such as CONFIG_NET_VRF, or its first release, such as "Linux 6.11".
func (k kernel) has(feature string) bool {
	if since, release := strings.CutPrefix(feature, "Linux "); release {
		return !older(k.line, since)
	}
	for l := range strings.Lines(k.config) {
		if l == feature+"=y\n" || l == feature+"=m\n" {
			return true
		}
	}
	return false
}

//go:embed guest/boot.sh
var bootScript string

// unused are folders of modules that no guest needs; they are most of the size.
var unused = []string{
	"sound", "drivers/gpu", "drivers/media", "drivers/infiniband", "drivers/scsi", "drivers/usb", "drivers/iio", "drivers/staging",
	"drivers/net/wireless", "drivers/ata", "drivers/hid", "drivers/input", "drivers/md", "drivers/mtd", "drivers/nvme", "drivers/target",
}

// kernel gets the newest kernel of a line, unless an earlier run has it.
func (d *debian) kernel(ctx context.Context, line string) (kernel, error) {
	image, err := d.image(ctx, line)
	if err != nil {
		return kernel{}, err
	}
	k := kernel{line: line, release: strings.TrimPrefix(image, "linux-image-")}
	k.dir = filepath.Join(d.dir, k.release)
	if _, err := os.Stat(k.modules()); err != nil {
		if err := d.fetch(ctx, k, image); err != nil {
			return k, err
		}
	}
	config, err := os.ReadFile(k.configFile())
	k.config = string(config)
	return k, err
}

// fetch gets the files of a kernel.
func (d *debian) fetch(ctx context.Context, k kernel, image string) error {
	work, err := os.MkdirTemp(d.dir, "kernel-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "tree")
	if err := d.unpack(ctx, image, work, tree); err != nil {
		return err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return err
	}
	modules := filepath.Join(tree, "lib/modules")
	for _, folder := range unused {
		if err := os.RemoveAll(filepath.Join(modules, k.release, "kernel", folder)); err != nil {
			return err
		}
	}
	if _, err := shell(ctx, "", "depmod", "-b", tree, k.release); err != nil {
		return err
	}
	if err := k.makeInitrd(ctx, tree, filepath.Join(work, "boot")); err != nil {
		return err
	}
	at := filepath.Join(modules, k.release)
	if err := moveFirst(k.vmlinuz(), filepath.Join(tree, "boot/vmlinu?-*"), filepath.Join(at, "vmlinu?")); err != nil {
		return err
	}
	if err := moveFirst(k.configFile(), filepath.Join(tree, "boot/config-*"), filepath.Join(at, "config")); err != nil {
		return err
	}
	return makeDisk(ctx, k.modules(), modules, 20)
}

// moveFirst moves the first file that a pattern matches.
func moveFirst(to string, patterns ...string) error {
	for _, pattern := range patterns {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return err
		}
		if len(files) > 0 {
			return os.Rename(files[0], to)
		}
	}
	return fmt.Errorf("the kernel's packages have no %s: %w", filepath.Base(to), os.ErrNotExist)
}

// unpack unpacks the packages of a kernel. In newer lines the image depends on one
// with the kernel and one with its modules.
func (d *debian) unpack(ctx context.Context, image, work, tree string) error {
	release := strings.TrimPrefix(image, "linux-image-")
	all := []string{image}
	for i := 0; i < len(all); i++ {
		out, err := d.apt(ctx, "", "apt-cache", "depends", all[i])
		if err != nil {
			return err
		}
		for l := range strings.Lines(out) {
			name, depends := strings.CutPrefix(strings.TrimSpace(l), "Depends: ")
			if depends && strings.HasPrefix(name, "linux-") && strings.HasSuffix(name, "-"+release) && !slices.Contains(all, name) {
				all = append(all, name)
			}
		}
	}
	if _, err := d.apt(ctx, work, "apt-get", append([]string{"download"}, all...)...); err != nil {
		return err
	}
	packages, err := filepath.Glob(filepath.Join(work, "*.deb"))
	if err != nil {
		return err
	}
	for _, p := range packages {
		if _, err := shell(ctx, "", "dpkg-deb", "-x", p, tree); err != nil {
			return err
		}
	}
	// Newer packages have the modules below /usr, where depmod does not look.
	usr := filepath.Join(tree, "usr/lib/modules")
	if _, err := os.Stat(usr); err != nil {
		return nil
	}
	if err := os.MkdirAll(filepath.Join(tree, "lib"), 0o755); err != nil {
		return err
	}
	_, err = shell(ctx, "", "cp", "-a", usr, filepath.Join(tree, "lib/"))
	return err
}

// makeInitrd makes the initial file system: busybox, and the modules that the root disk
// needs. boot.sh loads them in the order of their names.
func (k kernel) makeInitrd(ctx context.Context, tree, boot string) error {
	for _, dir := range []string{"bin", "dev", "proc", "root", "modules"} {
		if err := os.MkdirAll(filepath.Join(boot, dir), 0o755); err != nil {
			return err
		}
	}
	if err := os.WriteFile(filepath.Join(boot, "init"), []byte(bootScript), 0o755); err != nil {
		return err
	}
	var files []string
	for _, module := range []string{"virtio_pci", "virtio_blk", "ext4"} {
		out, err := shell(ctx, "", "modprobe", "-d", tree, "-S", k.release, "--show-depends", module)
		if err != nil {
			return err
		}
		for l := range strings.Lines(out) {
			file, load := strings.CutPrefix(strings.TrimSpace(l), "insmod ")
			if load && !slices.Contains(files, file) {
				files = append(files, file)
			}
		}
	}
	for i, file := range files {
		to := filepath.Join(boot, "modules", fmt.Sprintf("%02d-%s", i, strings.TrimSuffix(filepath.Base(file), ".xz")))
		command := `cp "$1" "$2"`
		if strings.HasSuffix(file, ".xz") {
			command = `xz -dc "$1" >"$2"`
		}
		if _, err := shell(ctx, "", "sh", "-c", command, "sh", strings.TrimSpace(file), to); err != nil {
			return err
		}
	}
	_, err := shell(ctx, boot, "sh", "-c", `cp "$(command -v busybox)" bin/busybox && ln -s busybox bin/sh && find . | busybox cpio -o -H newc 2>/dev/null | gzip -1 >"$1"`, "sh", k.initrd())
	return err
}
