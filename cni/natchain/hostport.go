package natchain

import (
	"context"
	"errors"
	"fmt"

	"sigs.k8s.io/knftables"
)

// The table and the chains of portmap with nftables, where it has no iptables. The comment
// of a rule is the container.
const hostportTable = "cni_hostport"

var hostportChains = []string{"hostports", "hostip_hostports", "masquerading"}

// RemoveHostports removes the rules of nftables by which portmap leads to containers. A
// rule does not name the network, so that the caller has to know whose the containers
// are.
func RemoveHostports(ctx context.Context, containers map[string]bool) error {
	if len(containers) == 0 {
		return nil
	}
	var errs []error
	for _, family := range []knftables.Family{knftables.IPv4Family, knftables.IPv6Family} {
		nft, err := knftables.New(family, hostportTable)
		if err != nil {
			continue // nft does not work here, so portmap has no rules of it
		}
		errs = append(errs, removeHostports(ctx, nft, containers))
	}
	return errors.Join(errs...)
}

func removeHostports(ctx context.Context, nft knftables.Interface, containers map[string]bool) error {
	tx := nft.NewTransaction()
	for _, chain := range hostportChains {
		rules, err := nft.ListRules(ctx, chain)
		if err != nil && !knftables.IsNotFound(err) {
			return fmt.Errorf("list the chain %s of the table %s: %w", chain, hostportTable, err)
		}
		for _, r := range rules {
			if r.Comment != nil && containers[*r.Comment] {
				tx.Delete(r)
			}
		}
	}
	if tx.NumOperations() == 0 {
		return nil
	}
	if err := nft.Run(ctx, tx); err != nil {
		return fmt.Errorf("remove rules from the table %s: %w", hostportTable, err)
	}
	return nil
}
