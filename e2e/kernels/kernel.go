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
}

func (k kernel) vmlinuz() string { return filepath.Join(k.dir, "vmlinuz") }
func (k kernel) initrd() string  { return filepath.Join(k.dir, "initrd") }
func (k kernel) modules() string { return filepath.Join(k.dir, "modules.ext4") }

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
	if _, err := os.Stat(k.modules()); err == nil {
		return k, nil
	}
	work, err := os.MkdirTemp(d.dir, "kernel-")
	if err != nil {
		return k, err
	}
	defer os.RemoveAll(work)
	tree := filepath.Join(work, "tree")
	if err := d.unpack(ctx, image, work, tree); err != nil {
		return k, err
	}
	if err := os.MkdirAll(k.dir, 0o755); err != nil {
		return k, err
	}
	modules := filepath.Join(tree, "lib/modules")
	for _, folder := range unused {
		if err := os.RemoveAll(filepath.Join(modules, k.release, "kernel", folder)); err != nil {
			return k, err
		}
	}
	if _, err := shell(ctx, "", "depmod", "-b", tree, k.release); err != nil {
		return k, err
	}
	if err := k.makeInitrd(ctx, tree, filepath.Join(work, "boot")); err != nil {
		return k, err
	}
	images, err := filepath.Glob(filepath.Join(tree, "boot", "vmlinu?-*"))
	if err != nil || len(images) == 0 {
		images, err = filepath.Glob(filepath.Join(modules, k.release, "vmlinu?"))
	}
	if err != nil || len(images) == 0 {
		return k, fmt.Errorf("the package %s has no kernel: %w", image, os.ErrNotExist)
	}
	if err := os.Rename(images[0], k.vmlinuz()); err != nil {
		return k, err
	}
	return k, makeDisk(ctx, k.modules(), modules, 20)
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

// makeInitrd makes the initial file system: busybox, and the modules of the root
// disk, which boot.sh loads in the order of their names.
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
