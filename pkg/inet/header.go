package inet

// HeaderLen returns the length of an IP header without options and extension headers,
// in bytes (RFC 791, section 3.1; RFC 8200, section 3).
func (f Family) HeaderLen() int {
	if f == IPv4 {
		return 20
	}
	return 40
}
