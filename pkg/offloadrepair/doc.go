// Package offloadrepair knows the switch that ends a fault of an offload, and turns it.
//
//	offloadprobe.Prober ──layer of the fault──► Candidates ──► command for the operator
//	         ▲                                       │
//	         └──────probes again────────── Repairer: turns one, keeps it if it helps
//
// A switch is a feature of "ethtool -k". Several may end one fault, with different
// costs for other traffic. A Repairer turns the cheapest one off and probes again. If
// the fault remains, it turns the switch on again, and tries the next one. At times it
// turns the switch on, to find out whether the fault is gone.
package offloadrepair
