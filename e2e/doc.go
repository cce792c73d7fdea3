// Package e2e tests the built program from end to end: real daemons with a real
// etcd on hosts made of network namespaces, real packets between containers
// behind their bridges. What it knows of the program is what an operator
// knows: flags, files, logs, exit codes, the status page, packets.
//
// The daemons inherit the environment, so that FLANNELD_UDP_DATAPATH=plain
// runs all of it over that data path.
package e2e
