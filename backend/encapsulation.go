package backend

// Encapsulation is how containers' packets get the headers of the way to a peer. It
// decides which offloads of the devices they use.
type Encapsulation int

const (
	// Unencapsulated packets get no more headers.
	Unencapsulated Encapsulation = iota
	// WholeByKernel: the kernel encapsulates super-packets whole, and the uplink segments
	// what is inside.
	WholeByKernel
	// SinglyByKernel: the kernel encapsulates each packet by itself.
	SinglyByKernel
	// SinglyByProcess: this process encapsulates each packet by itself.
	SinglyByProcess
	// JoinedByProcess: this process encapsulates packets, and sends several that follow
	// each other as one super-packet of datagrams.
	JoinedByProcess
)
