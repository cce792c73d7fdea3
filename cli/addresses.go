package cli

import (
	"context"
	"flag"
	"fmt"
	"net/netip"
	"time"

	"github.com/coreos/flannel/cni/reservation"
)

var addressesCommand = command{
	name: "addresses", summary: "print the addresses that CNI keeps for pods, and free those of pods that no longer exist",
	detail: "The plugin host-local keeps an address until the container engine deletes the pod's network. After a crash or a failed\n" +
		"delete the address stays reserved. An address is leaked if no interface has it, in any network namespace of this host.",
	json: "print JSON",
	prepare: func(p *Program, fs *flag.FlagSet) action {
		dir := fs.String("dir", reservation.DefaultDir, "`folder` of host-local's reservations")
		network := fs.String("network", "", "`name` of one network of CNI; empty: all")
		free := fs.Bool("free", false, "free the leaked addresses")
		age := fs.Duration("min-age", 10*time.Minute, "younger reservations are not leaked: the pod may be starting")
		return func(context.Context, []string) error {
			all, err := reservations(*dir, *network, *age)
			if err != nil {
				return err
			}
			if *free {
				if err := freeLeaked(all); err != nil {
					return err
				}
			}
			return printReservations(p, all)
		}
	},
}

// States of a reservation.
const (
	addressUsed   = "used"
	addressNew    = "new"
	addressLeaked = "leaked"
	addressFreed  = "freed"
)

type reservationState struct {
	reservation.Reservation
	State string `json:"state"`
}

func reservations(dir, network string, age time.Duration) ([]reservationState, error) {
	if err := reservation.CheckHost(); err != nil {
		return nil, err
	}
	list, err := reservation.List(dir, network)
	if err != nil {
		return nil, fmt.Errorf("read reservations: %w", err)
	}
	used, err := reservation.InUse() // after the list, which lacks pods that start meanwhile
	if err != nil {
		return nil, err
	}
	all := make([]reservationState, 0, len(list))
	for _, r := range list {
		all = append(all, reservationState{r, stateOf(r, used, age)})
	}
	return all, nil
}

func stateOf(r reservation.Reservation, used map[netip.Addr]bool, age time.Duration) string {
	switch {
	case used[r.Addr]:
		return addressUsed
	case time.Since(r.Since) < age:
		return addressNew
	}
	return addressLeaked
}

func freeLeaked(all []reservationState) error {
	for i, r := range all {
		if r.State != addressLeaked {
			continue
		}
		if err := r.Free(); err != nil {
			return err
		}
		all[i].State = addressFreed
	}
	return nil
}

func printReservations(p *Program, all []reservationState) error {
	if p.json {
		return printJSON(p.Stdout, all)
	}
	rows := [][]string{{"NETWORK", "ADDRESS", "STATE", "SINCE", "INTERFACE", "CONTAINER"}}
	for _, r := range all {
		rows = append(rows, []string{r.Network, r.Addr.String(), r.State, r.Since.Format(time.DateTime), r.Interface, r.Container})
	}
	return table(p.Stdout, rows)
}
