// Package subnettest holds what tests of the control plane stand on: a Fake
// registry that fails on demand, and Conformance, the suite that the Fake and
// every real registry pass, so that what is tested against the one holds for
// the others.
package subnettest
