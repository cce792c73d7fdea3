package docs

import (
	"regexp"
	"strings"
	"testing"
)

const (
	meanWords = 13 // of a page's sentences
	maxWords  = 28 // of one sentence
)

var (
	fenced      = regexp.MustCompile("(?ms)^ *```.*?^ *```$")
	notProse    = regexp.MustCompile(`(?m)^(\||#|!\[| *[┌│└]).*$`)
	linkTarget  = regexp.MustCompile(`\]\([^)]*\)`)
	itemStart   = regexp.MustCompile(`(?m)^ *([-*]|\d+\.) `)
	sentenceEnd = regexp.MustCompile(`([.?!;:]\**|,)(\s*\n\s*\n)|[.?!;:]\**\s+|\n\s*\n`)
	avoided     = regexp.MustCompile(`(?i)\b(whoever|whomever|somebody|anybody|mends?|mended|tells|told|anew|heeds?)\b`)
)

// sentences returns the prose of a page, without code blocks, tables and headings.
func sentences(text string) (all []string) {
	text = fenced.ReplaceAllString(text, "\n")
	text = notProse.ReplaceAllString(text, "\n")
	text = linkTarget.ReplaceAllString(text, "]")
	text = itemStart.ReplaceAllString(text, "\n\n")
	for _, s := range sentenceEnd.Split(text, -1) {
		if len(strings.Fields(s)) > 1 {
			all = append(all, strings.Join(strings.Fields(s), " "))
		}
	}
	return all
}

// Documents have short sentences in plain words.
func TestSentences(t *testing.T) {
	for _, page := range pages(t) {
		text := read(t, page)
		all, words := sentences(text), 0
		for _, s := range all {
			n := len(strings.Fields(s))
			words += n
			if n > maxWords {
				t.Errorf("%s: %d words, more than %d: %s", page, n, maxWords, s)
			}
		}
		if len(all) > 0 && words > meanWords*len(all) {
			t.Errorf("%s: %d words in %d sentences, more than %d on average", page, words, len(all), meanWords)
		}
		for _, m := range avoided.FindAllString(fenced.ReplaceAllString(text, ""), -1) {
			t.Errorf("%s: the word %q", page, m)
		}
	}
	got := sentences("# A b c\n\nOne `two` three.\nFour five [six](seven eight):\n\n- one two\n- three four\n\n```\na b c.\n```\n| a b | c |\n")
	if want := "One `two` three|Four five [six]|one two|three four"; strings.Join(got, "|") != want {
		t.Errorf("sentences are %q, want %s", got, want)
	}
}
