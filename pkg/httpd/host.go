package httpd

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
)

// OwnHost passes on the requests whose Host header is an IP address, localhost
// or one of names, and answers the others with 421. A page of another site,
// whose name has come to lead to this host (DNS rebinding), cannot read the
// answers: a browser sends that name.
func OwnHost(next http.Handler, names ...string) http.Handler {
	own := map[string]bool{"": true, "localhost": true} // no browser sends none
	for _, name := range names {
		own[canonical(name)] = true
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := r.Host
		if host, _, err := net.SplitHostPort(name); err == nil {
			name = host
		}
		name = strings.TrimSuffix(strings.TrimPrefix(name, "["), "]")
		if _, err := netip.ParseAddr(name); err != nil && !own[canonical(name)] { // promise: foreign-host-header-is-refused
			http.Error(w, fmt.Sprintf("%q is not a name of this host: use its IP address, its host name, or the name in -status-addr", r.Host), http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// canonical is a host name in lower case, without the dot of a full one.
func canonical(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }
