// Package printable makes text of others fit for a line of a log or a terminal.
// Such text is what anybody who may write to the store, or to a file of
// environment variables, puts there: escape sequences of terminals, line ends,
// marks that turn the direction of reading.
package printable

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Word returns s with each byte or character that is not printable replaced by
// "?", and cut to at most size bytes.
func Word(s string, size int) string {
	s = strings.Map(func(r rune) rune {
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	for len(s) > size { // by whole characters
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}

// Lines returns b with the control characters escaped as in Go's strings, but for
// line ends and tabs. It returns b itself if there are none.
func Lines(b []byte) []byte {
	var out []byte // b[:done], escaped; nil until there is something to escape
	done := 0
	for i := 0; i < len(b); {
		r, n := utf8.DecodeRune(b[i:])
		if r != '\n' && r != '\t' && (unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r)) {
			out = append(out, b[done:i]...)
			out = append(out, strings.Trim(strconv.QuoteRuneToASCII(r), "'")...)
			done = i + n
		}
		i += n
	}
	if done == 0 {
		return b
	}
	return append(out, b[done:]...)
}
