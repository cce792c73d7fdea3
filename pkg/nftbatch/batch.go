// Package nftbatch sends batches to nftables. On a kernel without nftables a batch fails at
// once, and the error names the modules to load.
package nftbatch

import (
	"fmt"

	"github.com/google/nftables"
)

// Flush sends the batch of c, unless the kernel has no nftables. Without nf_tables the
// kernel answers a batch once, and Flush of the library waits for an answer to each
// message for ever.
func Flush(c *nftables.Conn) error {
	if _, err := c.ListTablesOfFamily(nftables.TableFamilyIPv4); err != nil {
		return fmt.Errorf("look for nftables: %w", err)
	}
	return c.Flush()
}

// Remove deletes a table if it exists. A kernel without nftables has none.
func Remove(t *nftables.Table) error {
	c, err := nftables.New()
	if err == nil {
		c.AddTable(t) // to delete one that does not exist is an error
		c.DelTable(t)
		err = Flush(c)
	}
	if err != nil && !Lacking(err) {
		return fmt.Errorf("remove nftables table %s: %w", t.Name, err)
	}
	return nil
}
