// Package subnettest tests stores and what depends on them. Fake is a store in
// memory that fails on demand. Source, Keyspace and Admin are the conformance
// suites that the Fake and every real store pass, so that a test with the Fake
// holds for the others.
package subnettest
