// Package commandline holds scripts that run the program's command line.
package commandline
