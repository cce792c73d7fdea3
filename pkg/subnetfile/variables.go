package subnetfile

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Variables returns all variables that the file at path assigns, also those that
// Env does not have. The error for a missing file is fs.ErrNotExist.
func Variables(path string) (map[string]string, error) {
	text, err := readText(path)
	if err != nil {
		return nil, err
	}
	vars, err := assignments(text)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return vars, nil
}

func readText(path string) (string, error) {
	// A named pipe that nobody writes to is empty, and no reason to wait.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	if err == nil && len(text) > maxSize {
		err = fmt.Errorf("read %s: longer than %d bytes", path, maxSize)
	}
	return string(text), err
}
