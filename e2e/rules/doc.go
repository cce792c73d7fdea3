// Package rules holds the rules of this repository as tests: the layout, the
// directions of imports, the lengths of files and functions, the comments, and
// the calls that only main may make.
package rules
