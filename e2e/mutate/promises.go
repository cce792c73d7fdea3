package main

// promises are those of the README, in its order, and the core of the udp
// backend.
var promises = []promise{
	{
		name: "One owner",
		violation: "Start a second host with `-public-ip` of a living one, or with a copy of its `-state-dir`; change `SubnetLen` while hosts start; " +
			"write another host's value to a key with `etcdctl put` while its owner is cut off from etcd.",
		mutations: []mutation{
			{"subnet/acquire.go", "		older, doubled := a.doubled(leases)", "		older, doubled := Lease{}, false",
				"subnet", "TestAcquireOneOwner", "two hosts hold overlapping subnets"},
			{"subnet/acquire.go", "		if strange(l, a.attrs) {", "		if false {",
				"subnet", "TestAddressInUse", "want ErrAddressInUse"},
			{"subnet/etcdv3/lease.go", "	return clientv3.Compare(clientv3.Version(key), \"=\", 0)", "	return clientv3.Compare(clientv3.Version(key), \">\", -1)",
				"subnet/etcdv3", "TestConformance/CreateRace", "both created the lease"},
			{"subnet/renew.go", "slices.Contains(m.former, stored.PublicIP)", "!slices.Contains(m.former, own.PublicIP)",
				"subnet", "TestAdoptAfterMove", "it fights for a lease that another host has"},
		},
	},
	{
		name:      "The same subnet",
		violation: "Delete the key of a running host; restart it with another address, or with `/run` emptied; give the uplink an address that the backend cannot use.",
		mutations: []mutation{
			{"subnet/renew.go", "	created, err := m.reg.Create(ctx, l, m.terms.TTL)\n	return created, m.answered(err)", "	return l, nil",
				"subnet", "TestRenewDeletedKey", "the key was not created again"},
			{"subnet/claim.go", " || !l.Reserved && a.attrs.NodeID != \"\" && l.Attrs.NodeID == a.attrs.NodeID", "",
				"subnet", "TestSameNodeAtAnotherAddress", "want ErrCloned"},
			{"subnet/watch.go", " || l.Rev == w.self.Rev)", ")",
				"subnet", "TestAdoptOwnRevision", "1 bad keys"},
			{"memory.go", "	return remembered.Lease.Subnet\n", "	return netip.Prefix{}\n",
				".", "TestPreviousSubnet", "without subnet.env"},
			{"move.go", "		if moved && ctx.Err() == nil && errors.As(err, &unmade) {", "		if false && moved && errors.As(err, &unmade) {",
				"e2e", "TestUplinkUnusable", "make the network anew: failed"},
		},
	},
	{
		name: "Packets do not depend on etcd",
		violation: "Stop etcd, or `kill -STOP` it, under a ping; restore it from an old snapshot; `etcdctl del --prefix` all leases; " +
			"restart a host while etcd is away; cut its connections without a word.",
		mutations: []mutation{
			{"subnet/departures.go", "	if !d.holding && 2*gone > all {", "	if false {",
				"subnet", "TestMassDisappearanceIsHeld", "mass disappearance"},
			{"subnet/departures.go", "	if d.holding && len(d.gone) == 0 {", "	if false {",
				"subnet", "TestHoldEndsWhenAllAreBack", "a single lease that ended was not removed"},
			{"join.go", "	if !errors.Is(err, subnet.ErrSilent) {", "	if err != nil {",
				"e2e", "TestStartWithoutEtcd/api3", "the daemon has ended"},
			{"subnet/claim.go", "		a.answered(nil) // that nothing came", "		_ = a // that nothing came",
				"subnet", "TestAcquirePatience", "want the lease after two claims' waits"},
			{"subnet/etcdv2/watch.go", "	beats.Go(func() { r.beat(ctx, cancel, index.Load) })", "",
				"subnet/etcdv2", "TestWaitHalfOpen", "never told of"},
			{"subnet/etcdv3/watch.go", "	if !r.continues(resp.Header) {", "	if false {",
				"subnet/etcdv3", "TestWatchOvertakenStore", "the new history was taken for the old one"},
		},
	},
	{
		name:      "Bad data is contained",
		violation: "Put nonsense below `subnets/`: a key that is no subnet, a value that is no JSON, a subnet over all others, or outside of `Network`, a key with another host's address.",
		mutations: []mutation{
			{"subnet/watch.go", "	case l.Subnet.Overlaps(w.self.Subnet):", "	case false:",
				"subnet", "TestBadDataIsContained", "own: told of"},
			{"subnet/watch.go", "	case l.Attrs.PublicIP == w.self.Attrs.PublicIP:", "	case false:",
				"subnet", "TestBadDataIsContained", "bad data is not contained"},
			{"subnet/leaseset.go", "		if s.outranks(q, p) {", "		if false {",
				"subnet", "TestOverlapHasOneWinner", "two peers' subnets overlap"},
		},
	},
	{
		name:      "A reservation stays one",
		violation: "Reserve a subnet for a host, start it, and look at its key with `etcdctl get -w json`: there is no `lease`.",
		mutations: []mutation{
			{"subnet/etcdv3/lease.go", "	if l.Reserved {\n		if !same {\n			l.Rev, err = r.replace(ctx, kv, v, clientv3.NoLease)\n		}\n		return orZero(l, err)\n	}\n", "",
				"subnet/etcdv3", "TestConformance", "eserv"},
			{"subnet/acquire.go", "		choice, err = pick(a.config, slices.Concat(taken, a.others), newRand())", "		choice, err = pick(a.config, taken, newRand())",
				"subnet", "TestAcquireRememberedLast", "want 10.5.2.0/24"},
			{"subnet/acquire.go", "	a.others = slices.Concat(a.others, past)", "	_ = past",
				"subnet", "TestAcquirePastLast", "want 10.5.2.0/24"},
			{"subnet/etcdv3/past.go", "		counted, ages = append(counted, more...), ages[len(part):]", "		counted, ages = append(counted, more...), nil",
				"subnet/etcdv3", "TestPastPartlyCompacted", "want what was deleted since"},
			{"subnet/etcdv3/past.go", "		if m.gone = m.keys - int64(still); m.gone > 0 {", "		if m.gone = int64(still) - m.keys; m.gone > 0 {",
				"subnet/etcdv3", "TestPastOfMany", "that are gone"},
			{"subnet/etcdv2/past.go", "			found = append(found, l.Subnet)", "			_ = l",
				"subnet/etcdv2", "TestConformance/Past", "want it to name"},
		},
	},
	{
		name: "Leases do not run out unseen",
		violation: "Suspend a machine for longer than the renewal margin; set the clock; reboot with etcd away and the clock behind; " +
			"watch `subnets/` with `etcdctl watch` during renewals.",
		mutations: []mutation{
			{"subnet/renew.go", "		timer.Reset(min(left, clock.UntilTick(lookEvery)))", "		timer.Reset(left)",
				"subnet", "TestRenewAfterSuspend", "0 renewals after a suspend"},
			{"subnet/renew.go", "	return wait - time.Duration(rand.Int64N(int64(wait)/10+1))", "	_ = rand.Int64N\n	return wait",
				"subnet", "TestRenewHasJitter", "of them in one minute"},
			{"subnet/etcdv3/lease.go", "	if same {\n", "	if false {\n",
				"subnet/etcdv3", "TestConformance/WatchQuietRenewal", "renewal wrote to the key"},
			{"moment.go", "	if m.Boot != \"\" && m.Boot == before.Boot {", "	if false {",
				".", "TestMemoryLeft", "clock set forward"},
			{"moment.go", "	return passed, passed >= 0", "	return passed, true",
				".", "TestMemoryLeft", "rebooted with the clock behind"},
		},
	},
	{
		name:      "Interface changes are made good",
		violation: "`ip link set eth0 down` and up; give it another address or MTU; delete `flannel0`, its address or its route.",
		mutations: []mutation{
			{"pkg/uplink/follow.go", "		case now == next && settled:", "		case false && settled:",
				"pkg/uplink", "TestFollowSeesChanges", "deadline exceeded"},
			{"backend/udp/link.go", "	return configureDevice(l.netlink, n.path.deviceName(), n.plane.network, n.own, n.MTU())", "	_ = n\n	return nil",
				"e2e", "TestDeviceIsRepaired/offload", "not within 30s"},
		},
	},
	{
		name:      "A changed configuration is noticed",
		violation: "`flannel config set` another Network, SubnetLen or Backend under running hosts; delete the key; write nonsense.",
		mutations: []mutation{
			{"subnet/configwatch.go", "		{\"SubnetLen\", m.config.SubnetLen, c.SubnetLen},\n", "",
				"subnet", "TestConfigChanges", "SubnetLen is 25, was 24"},
			{"subnet/renew.go", "			if err := m.readAdopted(ctx); err != nil {", "			if err := error(nil); err != nil {",
				"subnet", "TestAdoptReadsConfigFirst", "writes before the configuration was read"},
		},
	},
	{
		name:      "Packets are admitted and carried as they should be",
		violation: "Send a datagram from an address that no lease has, or with an inner source that is not the sender's; send a packet that is larger than the path; take a peer's uplink down.",
		mutations: []mutation{
			{"backend/udp/table.go", "	case p == nil || p.outerSource != outer:", "	case p == nil:",
				"backend/udp", "TestAdmit", "want 4 (inner_source_mismatch)"},
			{"backend/udp/table.go", "	case packet.destination()&t.ownMask != t.ownNet:", "	case false:",
				"backend/udp", "TestAdmit", "want 5 (inner_destination_mismatch)"},
			{"backend/udp/fragment.go", "			flags |= flagMF", "			_ = flags",
				"backend/udp", "TestFragments", "more fragments: false, want true"},
			{"backend/udp/fragment.go", "		if options[0]&copiedBit != 0 {", "		if true {",
				"backend/udp", "TestFragments", "want [500 496 80]"},
			{"pkg/probe/search.go", "	s.failed, s.high = 0, size\n", "	s.failed, s.high = 0, size+2*precision\n",
				"pkg/probe", "TestSearchEndsBelowTheLimit", "want the full size again"},
		},
	},
}
