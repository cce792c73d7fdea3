package wireguard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/coreos/flannel/pkg/atomicfile"
	"github.com/coreos/flannel/pkg/ownfile"
)

// keyFile holds the private key, as "wg genkey" prints it, for root alone.
const keyFile = "wgkey"

// keyMode lets only the owner read the key, and protects it from edits.
const keyMode = 0o400

// loadKey reads the private key in dir. It makes one if there is none.
func loadKey(dir string) (wgtypes.Key, error) {
	path := filepath.Join(dir, keyFile)
	if err := ownfile.CheckFile(path); err != nil {
		return wgtypes.Key{}, fmt.Errorf("read private key: %w", err)
	}
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return makeKey(dir)
	}
	if err != nil {
		return wgtypes.Key{}, fmt.Errorf("read private key: %w", err)
	}
	key, err := wgtypes.ParseKey(strings.TrimSpace(string(text)))
	if err != nil { // err may quote the key
		return wgtypes.Key{}, fmt.Errorf("read private key: %s does not hold one; delete it to get a new key", path)
	}
	if err := os.Chmod(path, keyMode); err != nil {
		return wgtypes.Key{}, fmt.Errorf("protect private key: %w", err)
	}
	return key, nil
}

// makeKey writes a new key to dir, in place of an old one.
func makeKey(dir string) (wgtypes.Key, error) {
	key, err := wgtypes.GeneratePrivateKey()
	if err != nil {
		return key, fmt.Errorf("make private key: %w", err)
	}
	if err := atomicfile.Write(filepath.Join(dir, keyFile), []byte(key.String()+"\n"), keyMode); err != nil {
		return key, fmt.Errorf("write private key: %w", err)
	}
	return key, nil
}
