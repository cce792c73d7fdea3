package link

import (
	"debug/buildinfo"
	"path"
	"runtime/debug"

	"golang.org/x/mod/semver"
)

// module has the plugins that are bundled.
const module = "github.com/containernetworking/plugins"

// Runs reports whether a bundled plugin may run in place of the program in the file: it
// is a link to Program, or a build of the same plugin from the same module. A build whose
// version is newer than that of the bundled plugins, a script or another program is run
// as what it is.
func Runs(file string) bool {
	return IsOurs(file) || isBuild(file, version())
}

// isBuild reports whether the file is a build of the plugin that its name says, of the
// version newest or an older one.
func isBuild(file, newest string) bool {
	info, err := buildinfo.ReadFile(file)
	if err != nil || path.Dir(path.Dir(info.Path)) != module+"/plugins" || path.Base(info.Path) != path.Base(file) {
		return false
	}
	return semver.Compare(info.Main.Version, newest) <= 0 // a build without a version is oldest
}

// version returns that of the bundled plugins, such as v1.9.1.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return ""
}
