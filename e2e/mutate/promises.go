package main

// promises are those of docs/promises.md, in its order.
var promises = []promise{
	{"One owner", []mutation{
		{"older-overlap-wins", never, "subnet/etcd", "TestAcquireOneOwner", "two hosts hold overlapping subnets"},
		{"repaired-key-is-verified", never, "subnet/etcd", "TestRenewVerifies", "want ErrLost"},
		{"one-host-an-address", never, "subnet/etcd", "TestAddressInUse", "want ErrAddressInUse"},
		{"owner-and-value-are-compared", withoutOperand, "subnet/subnettest", "TestFakeConformance/EqualRevision", "error is"},
		{"create-only-if-absent", yields(`clientv3.Compare(clientv3.Version(key), ">", -1)`), "subnet/etcdv3", "TestConformance/CreateRace", "both created the lease"},
		{"former-address-is-ours", withoutOperand, "subnet", "TestAdoptAfterMove", "it fights for a lease that another host has"},
	}},
	{"Bad data is contained", []mutation{
		{"overlap-with-own-is-bad", never, "subnet", "TestBadDataIsContained", "own: told of"},
		{"own-address-elsewhere-is-bad", never, "subnet", "TestBadDataIsContained", "bad data is not contained"},
		{"overlap-has-one-winner", never, "subnet", "TestOverlapHasOneWinner", "two peers' subnets overlap"},
	}},
	{"Packets do not depend on etcd", []mutation{
		{"mass-removal-is-held", never, "subnet", "TestMassDisappearanceIsHeld", "mass disappearance"},
		{"hold-ends-when-all-are-back", never, "subnet", "TestHoldEndsWhenAllAreBack", "a single lease that ended was not removed"},
		{"v2-watch-has-heartbeat", skip, "subnet/etcdv2", "TestWaitHalfOpen", "never told of"},
		{"v3-other-history-is-resync", never, "subnet/etcdv3", "TestWatchOvertakenStore", "the new history was taken for the old one"},
	}},
	{"A start does not depend on etcd", []mutation{
		{"checkpoint-if-store-is-silent", always, "daemon", "TestJoinFromCheckpoint", "no configuration within 5s"},
		{"silent-owner-is-no-silent-store", skip, "subnet/etcd", "TestAcquireStoreTimeout", "want the lease after"},
		{"same-boot-uses-boot-clock", never, "daemon", "TestCheckpointRemaining", "clock set forward"},
		{"clock-behind-is-unknown", always, "daemon", "TestCheckpointRemaining", "rebooted with the clock behind"},
		{"config-before-first-write", never, "subnet", "TestAdoptReadsConfigFirst", "writes before the configuration was read"},
	}},
	{"The same subnet", []mutation{
		{"deleted-key-is-created-again", yields("l, error(nil)"), "subnet", "TestRenewDeletedKey", "the key was not created again"},
		{"node-id-proves-ownership", withoutOperand, "subnet/etcd", "TestSameNodeAtAnotherAddress", "want ErrCloned"},
		{"checkpoint-names-subnet", yields("netip.Prefix{}"), "daemon", "TestLastRunSubnet", "without subnet.env"},
		{"unusable-uplink-keeps-lease", never, "daemon", "TestSetupFailureKeepsTheLease", "the lease is gone"},
	}},
	{"Interface changes are made good", []mutation{
		{"uplink-change-is-reported", never, "pkg/uplink", "TestFollowSeesChanges", "deadline exceeded"},
		{"kernel-change-is-repaired", never, "pkg/rtnl", "TestRepair/route_del_.*", "not within"},
	}},
	{"A restart loses no packet", []mutation{
		{"pinned-filter-stays", never, "backend/udp/bpf", "TestRestart/filters", "want none"},
		{"programs-get-what-they-take", always, "backend/udp", "TestPairsOfLeases", "takes 6in4: true"},
	}},
	{"A changed configuration is noticed", []mutation{
		{"subnet-len-is-compared", skip, "subnet", "TestConfigChanges", "SubnetLen is 25, was 24"},
	}},
	{"The families are independent", []mutation{
		{"ipv4-subnet-stays", yields("a.keyspace.Create(ctx, next, a.ttl)"), "subnet/etcd", "TestAcquireMovesLease", "the store has"},
		{"packets-wait-for-the-next-network", always, "daemon", "TestIPv6IntoARunningNetwork", "the network before has left"},
		{"full-ipv6-costs-no-ipv4", never, "subnet/etcd", "TestAcquireWithFullIPv6", "no free subnet is left"},
		{"lost-ipv6-costs-no-ipv4", never, "subnet/etcd", "TestIPv6PartIsLost", "the lost part is not noticed"},
		{"unpublished-family-is-no-part", never, "subnet/kube", "TestLeaseOfPublishedFamilies", "want 10.5.3.0-24"},
		{"family-is-turned-on-at-once", never, "subnet", "TestConfigTurnsFamilyOn", "ended with"},
	}},
	{"A reservation stays one", []mutation{
		{"reservation-gets-no-ttl", never, "subnet/etcdv3", "TestConformance", "eserv"},
		{"remembered-subnets-come-last", yields("pick(a.config.RangeOf(f), taken, newRand())"), "subnet/etcd", "TestAcquireRememberedLast", "want 10.5.2.0/24"},
	}},
	{"Leases do not run out unseen", []mutation{
		{"suspend-is-noticed", skip, "subnet", "TestRenewAfterSuspend", "0 renewals after a suspend"},
		{"renewal-has-jitter", withoutOperand, "subnet", "TestRenewHasJitter", "of them in one minute"},
		{"renewal-writes-no-key", never, "subnet/etcdv3", "TestConformance/WatchQuietRenewal", "renewal wrote to the key"},
	}},
	{"A pod's address is its own until the pod is deleted", []mutation{
		{"saved-until-deleted", never, "cni", "TestDelIsRepeated", "with a broken bridge"},
		{"interfaces-have-own-files", never, "cni", "TestAttachments", "the short name has"},
		{"gc-is-of-one-network", withoutOperand, "cni", "TestGC", "saved is"},
		{"another-owner-keeps-the-address", never, "cni/reservation", "TestListAndFree", "List = "},
	}},
	{"Pods start only where they can be connected", []mutation{
		{"stale-configuration-is-withdrawn", always, "daemon", "TestCNIConf", "there is a configuration without subnet.env"},
		{"broken-configuration-stays-away", never, "cni/conflist", "TestBrokenSource", "with the source"},
	}},
	{"A cluster's API server is asked for little", []mutation{
		{"watch-resumes", never, "subnet/kube", "TestBrokenWatchResumes", "more lists"},
		{"lost-data-is-no-data", never, "subnet/kube", "TestLostDataIsNoChange", "0 bad records"},
		{"silent-server-is-passed-over", skip, "subnet/kube", "TestDial", "it takes"},
		{"known-mac-stays", never, "backend/vxlan", "TestKnownMAC", "the MAC of the lease"},
		{"short-fault-is-no-taint", never, "daemon", "TestNodeReporter", "a start that waits"},
	}},
	{"Only expected packets pass", []mutation{
		{"inner-source-is-the-senders", withoutOperand, "backend/udp", "TestAdmit", "want 4 (inner_source_mismatch)"},
		{"inner-destination-is-ours", never, "backend/udp", "TestAdmit", "want 5 (inner_destination_mismatch)"},
		{"arrives-by-the-route", never, "backend/udp", "TestAdmitByInterface", "interface 0 gives"},
		{"fragments-have-mf", skip, "backend/udp", "TestFragments", "more fragments: false, want true"},
		{"copied-options-only", always, "backend/udp", "TestFragments", "want [500 496 80]"},
		{"search-ends-below-limit", yields("0, size+2*precision"), "pkg/probe", "TestSearchEndsBelowTheLimit", "want the full size again"},
	}},
	{"The host's rules hold on the fast path", []mutation{
		{"changed-rules-judge-again", skip, "backend/fastpath", "TestRuleAdded", "the flow has no mark"},
		{"rules-changed-meanwhile", skip, "backend/fastpath", "TestRuleAddedMeanwhile", "the flow has no mark"},
	}},
	{"Other users and programs", []mutation{
		{"device-has-an-owner", skip, "pkg/tun", "TestOthersCannotAttach", "a user of our group: attached"},
		{"lock-of-another-user-is-none", always, "pkg/netdev", "TestLockNameOfAnotherUser", "with a name that is nobody's"},
		{"files-of-others-are-refused", never, "pkg/ownfile", "TestCheck", "want \"belongs to user 65534\""},
		{"ipsec-of-ipv6-is-heeded", never, "pkg/hostrules", "TestIPv6", "want \"demands esp\""},
		{"ipsec-is-heeded", withoutOperand, "pkg/hostrules", "TestIPsec", "want \"demands esp\""},
		{"rule-about-datagrams-is-heeded", never, "pkg/hostrules", "TestNetfilter", "want \"tproxy\""},
		{"policy-drop-is-heeded", never, "pkg/hostrules", "TestNetfilter", "want \"policy\""},
		{"our-programs-are-first", never, "backend/udp/bpf", "TestFirst", "with another program before ours Check returns <nil>"},
		{"same-route-of-others-serves", always, "pkg/rtnl", "TestSameRouteStays", "the kernel has another program's route"},
		{"device-of-others-is-not-ours", never, "backend/udp", "TestForeignDeviceStays", "want a new flannel2"},
		{"connections-are-bounded", never, "pkg/httpd", "TestConnectionsAreBounded", "connection is still open"},
		{"foreign-host-header-is-refused", never, "pkg/httpd", "TestOwnHost", "status 200, want 421"},
		{"text-of-leases-is-printable", skip, "subnet", "TestTextOfALeaseIsPrintable", "want \"a?[2J??b???\""},
		{"crash-waits-for-no-reader", skip, "pkg/logpipe", "TestCrashWithStoppedReader", "want exit code 2"},
	}},
	{"Faults of offloads are named", []mutation{
		{"fault-needs-two-verdicts", withoutOperand, "pkg/offloadprobe", "TestDiagnosisOfLossesOnce", "two verdicts that differ"},
		{"pause-is-no-fault", always, "pkg/offloadprobe", "TestDiagnosisWithoutFault", "stalls"},
		{"silence-is-no-diagnosis", never, "pkg/offloadprobe", "TestFaultOfALatePeer", "not found"},
		{"probe-of-a-peer-is-answered", yields("receipt, true"), "pkg/offloadprobe", "TestStrangersGetNoAnswer", "want false"},
		{"switch-that-helps-is-kept", never, "pkg/offloadrepair", "TestRepair/first", "turned"},
		{"switch-is-turned-back", never, "pkg/offloadrepair", "TestTrial", "is off"},
		{"families-have-faults-apart", never, "pkg/offloadrepair", "TestProblemOfOneFamily", "layer \"\""},
	}},
}
