//go:build !amd64

package checksum

func addLE(b []byte) uint64 { return addGeneric(b) }
