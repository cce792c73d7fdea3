package main

// Version is what -version, the start-up line and the status report say.
// The build script sets it from the git tag with -ldflags -X.
var Version = "0.1.0+git"
