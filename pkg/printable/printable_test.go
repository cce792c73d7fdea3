package printable

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestWord(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "node-1.example.com": "node-1.example.com", "büro": "büro",
		"a\x1b[2Jb": "a?[2Jb", "a\r\nb": "a??b", "a\u009b2J": "a?2J", "a\u202eb": "a?b", "a\xffb": "a?b", "a\x7f\x00": "a??",
		strings.Repeat("ü", 200): strings.Repeat("ü", 126),
	} {
		if got := Word(s, 253); got != want {
			t.Errorf("Word(%q) = %q, want %q", s, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "I0102 a\tb ü\nI0102 c\n": "I0102 a\tb ü\nI0102 c\n", "\xff\n": "\xff\n",
		"a\x1b[2Jb\r\n": `a\x1b[2Jb\r` + "\n", "\u009b2J": `\u009b2J`, "\u202eb\x00": `\u202eb\x00`, "\x7f": `\x7f`,
	} {
		if got := string(Lines([]byte(s))); got != want {
			t.Errorf("Lines(%q) = %q, want %q", s, got, want)
		}
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\x1b[0m\r\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got := Lines(b)
		if strings.ContainsAny(string(got), "\x1b\r\x00\x07\x7f") {
			t.Errorf("Lines(%q) = %q", b, got)
		}
		if string(Lines(got)) != string(got) {
			t.Errorf("Lines is not idempotent on %q", b)
		}
		if utf8.Valid(b) && !utf8.Valid(got) {
			t.Errorf("Lines(%q) is no UTF-8", b)
		}
	})
}
