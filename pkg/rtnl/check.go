package rtnl

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Check compares the kernel's tables with what is desired, and changes nothing.
// The error lists the differences, in a line for each kind. Check returns nil
// before Reset, since what is desired is not known yet. A gateway that is not on
// the link is no difference: no pass can repair it, and Refusals has it.
//
// Check reads what a pass reads: some 15 ms for ten thousand peers.
func (r *Reconciler) Check() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.owners == nil {
		return nil
	}
	_, d, err := r.compare()
	if err != nil {
		return err
	}
	missing := slices.DeleteFunc(d.add, func(o operation) bool {
		route, ok := o.object.(kernelRoute)
		return ok && r.refused[route.key()] != nil && errors.Is(r.refused[route.key()], ErrNotOnLink)
	})
	return errors.Join(
		listed("the kernel lacks", missing, operation.String),
		listed("the kernel has too much", d.remove, operation.String),
		listed("the kernel cannot take", d.failed, error.Error),
		listed("the kernel has another program's route", d.refused, func(r *Refusal) string { return r.Route.String() }))
}

// listed returns an error with the number of entries that share a fault and the
// names of the first few; nil if there is none.
func listed[T any](fault string, all []T, name func(T) string) error {
	if len(all) == 0 {
		return nil
	}
	var names []string
	for _, v := range all[:min(len(all), maxReasons)] {
		names = append(names, name(v))
	}
	if len(all) > maxReasons {
		names = append(names, "…")
	}
	return fmt.Errorf("%s (%d): %s", fault, len(all), strings.Join(names, "; "))
}
