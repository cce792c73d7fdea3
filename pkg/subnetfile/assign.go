package subnetfile

import (
	"errors"
	"strings"
)

var errQuote = errors.New("unterminated quote")

// assignments parses NAME=value lines as sh and systemd both do (POSIX.1-2017,
// Shell Command Language 2.2; systemd.exec(5), EnvironmentFile). It accepts
// comments, 'single' and "double" quotes, which may span lines, and \ before a
// character or at the end of a line. The last assignment of a name counts. A line
// without = is ignored, as systemd does.
func assignments(text string) (map[string]string, error) {
	vars := make(map[string]string)
	for text != "" {
		text = strings.TrimLeft(text, " \t\r\n")
		end := strings.IndexByte(text, '\n')
		if end < 0 {
			end = len(text)
		}
		eq := strings.IndexByte(text[:end], '=')
		if eq < 0 || text[0] == '#' || text[0] == ';' {
			text = text[end:]
			continue
		}
		name := strings.TrimPrefix(strings.TrimSpace(text[:eq]), "export ")
		value, n, err := unquote(text[eq+1:])
		if err != nil {
			return nil, err
		}
		vars[strings.TrimSpace(name)] = value
		text = text[eq+1+n:]
	}
	return vars, nil
}

// unquote reads one value, up to a newline outside quotes, and returns how many
// bytes of s it used.
func unquote(s string) (value string, n int, err error) {
	var b strings.Builder
	var quote byte
	i := 0
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case c == '\\' && quote != '\'' && i+1 < len(s):
			i++
			if s[i] == '\n' {
				continue
			}
			// Inside double quotes, \ is special only before these.
			if quote == '"' && !strings.ContainsRune("$`\"\\", rune(s[i])) {
				b.WriteByte('\\')
			}
			b.WriteByte(s[i])
		case quote == 0 && (c == '\'' || c == '"'):
			quote = c
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && c == '\n':
			return strings.TrimSpace(b.String()), i, nil
		default:
			b.WriteByte(c)
		}
	}
	if quote != 0 {
		return "", 0, errQuote
	}
	return strings.TrimSpace(b.String()), i, nil
}
