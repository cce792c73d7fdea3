// Package rules holds the repository's own rules, each as a test: who may
// import whom, how long a file may be, what has no place below main. A rule
// that nobody checks is a wish.
package rules
