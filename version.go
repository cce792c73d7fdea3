package main

// Version is the version that -version, the log and the status page report. The
// build script sets it from the git tag with -ldflags -X.
var Version = "0.1.0+git"
