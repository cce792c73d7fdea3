package kube

import (
	"bytes"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// protobufType is the media type of lists and watches. A list takes less than half the
// API server's time of one in JSON, and a field that is not needed is skipped unread.
const protobufType = "application/vnd.kubernetes.protobuf"

// envelopePrefix begins an object (k8s.io/apimachinery, runtime/serializer/protobuf). The
// message Unknown follows.
var envelopePrefix = []byte("k8s\x00")

// errEncoding: the API server, or a proxy before it, sends something else.
var errEncoding = errors.New("the answer is not " + protobufType)

// The numbers of the fields that are used. They never change. The files are
// generated.proto in k8s.io/apimachinery/pkg/runtime, k8s.io/apimachinery/pkg/apis/meta/v1
// and k8s.io/api/core/v1.
const (
	unknownRaw                                              = 2
	watchEventType, watchEventObject                        = 1, 2
	rawExtensionRaw                                         = 1
	listMetadata, listItems                                 = 1, 2
	listMetaResourceVersion, listMetaContinue               = 2, 3
	statusMessage, statusReason, statusCode                 = 3, 4, 6
	nodeMetadata, nodeSpec                                  = 1, 2
	metaName, metaUID, metaResourceVersion, metaAnnotations = 1, 5, 6, 12
	specPodCIDR, specPodCIDRs                               = 1, 7
	mapKey, mapValue                                        = 1, 2
)

// field is a field of a message: text if it is a string or a message, value if it is an
// integer.
type field struct {
	number protowire.Number
	text   []byte
	value  uint64
}

// eachField calls visit with the fields of a message, in order.
func eachField(message []byte, visit func(field) error) error {
	for len(message) > 0 {
		number, kind, n := protowire.ConsumeTag(message)
		if n < 0 {
			return fmt.Errorf("%w: %w", errEncoding, protowire.ParseError(n))
		}
		message = message[n:]
		f := field{number: number}
		switch kind {
		case protowire.BytesType:
			f.text, n = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			f.value, n = protowire.ConsumeVarint(message)
		default:
			n = protowire.ConsumeFieldValue(number, kind, message)
		}
		if n < 0 {
			return fmt.Errorf("%w: %w", errEncoding, protowire.ParseError(n))
		}
		message = message[n:]
		if err := visit(f); err != nil {
			return err
		}
	}
	return nil
}

// unwrap returns the message of an object.
func unwrap(object []byte) (message []byte, err error) {
	envelope, ok := bytes.CutPrefix(object, envelopePrefix)
	if !ok {
		return nil, errEncoding
	}
	err = eachField(envelope, func(f field) error {
		if f.number == unknownRaw {
			message = f.text
		}
		return nil
	})
	return message, err
}

// decode decodes an object Status.
func (e *apiError) decode(object []byte) error {
	message, err := unwrap(object)
	if err != nil {
		return err
	}
	return eachField(message, func(f field) error {
		switch f.number {
		case statusMessage:
			e.Message = string(f.text)
		case statusReason:
			e.Reason = string(f.text)
		case statusCode:
			e.Code = int(f.value)
		}
		return nil
	})
}

// decode decodes the message Node. It keeps none of its bytes.
func (n *node) decode(message []byte) error {
	return eachField(message, func(f field) error {
		switch f.number {
		case nodeMetadata:
			return eachField(f.text, n.setMetadata)
		case nodeSpec:
			return eachField(f.text, n.setSpec)
		}
		return nil
	})
}

func (n *node) setMetadata(f field) error {
	switch f.number {
	case metaName:
		n.Metadata.Name = string(f.text)
	case metaUID:
		n.Metadata.UID = string(f.text)
	case metaResourceVersion:
		n.Metadata.ResourceVersion = string(f.text)
	case metaAnnotations:
		var key, value string
		err := eachField(f.text, func(f field) error {
			switch f.number {
			case mapKey:
				key = string(f.text)
			case mapValue:
				value = string(f.text)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if n.Metadata.Annotations == nil {
			n.Metadata.Annotations = make(map[string]string)
		}
		n.Metadata.Annotations[key] = value
	}
	return nil
}

func (n *node) setSpec(f field) error {
	switch f.number {
	case specPodCIDR:
		n.Spec.PodCIDR = string(f.text)
	case specPodCIDRs:
		n.Spec.PodCIDRs = append(n.Spec.PodCIDRs, string(f.text))
	}
	return nil
}

// page is a part of a list of Nodes.
type page struct {
	resourceVersion, next string
	nodes                 []*node
}

func (p *page) decode(object []byte) error {
	message, err := unwrap(object)
	if err != nil {
		return err
	}
	return eachField(message, func(f field) error {
		switch f.number {
		case listMetadata:
			return eachField(f.text, func(f field) error {
				switch f.number {
				case listMetaResourceVersion:
					p.resourceVersion = string(f.text)
				case listMetaContinue:
					p.next = string(f.text)
				}
				return nil
			})
		case listItems:
			n := new(node)
			p.nodes = append(p.nodes, n)
			return n.decode(f.text)
		}
		return nil
	})
}

// decode decodes the message WatchEvent but for its object, which it returns. That of an
// ERROR event is a Status, that of all others a Node.
func (e *event) decode(frame []byte) (object []byte, err error) {
	err = eachField(frame, func(f field) error {
		switch f.number {
		case watchEventType:
			e.Type = string(f.text)
		case watchEventObject:
			return eachField(f.text, func(f field) error {
				if f.number == rawExtensionRaw {
					object = f.text
				}
				return nil
			})
		}
		return nil
	})
	if err != nil || e.Type == eventError {
		return object, err
	}
	message, err := unwrap(object)
	if err != nil {
		return nil, err
	}
	return object, e.Object.decode(message)
}
