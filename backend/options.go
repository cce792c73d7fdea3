package backend

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
)

// Decode decodes Options into a backend's own struct, and leaves fields without an
// option as they are. The case of keys does not matter; unknown keys are ignored.
// The error names the key, its value, and the valid values: a backend with a secret
// among its options must not use Decode.
func (c Config) Decode(into any) error {
	if c.Options == nil {
		return nil
	}
	err := json.Unmarshal(c.Options, into)
	var wrong *json.UnmarshalTypeError
	if errors.As(err, &wrong) && wrong.Field != "" {
		return fmt.Errorf("%s %s must be %s", "Backend."+wrong.Field, c.option(wrong.Field), describe(wrong.Type))
	}
	if err != nil {
		return fmt.Errorf("decode Backend %s: %w", c.Options, err)
	}
	return nil
}

// option returns the JSON of an option's value, "" if there is none.
func (c Config) option(name string) string {
	var all map[string]json.RawMessage
	if json.Unmarshal(c.Options, &all) != nil {
		return ""
	}
	for key, value := range all {
		if strings.EqualFold(key, name) {
			return string(value)
		}
	}
	return ""
}

// describe returns the JSON values that a Go type takes.
func describe(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int64:
		return "a whole number"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return fmt.Sprintf("a whole number in 0 to %d", uint64(1)<<t.Bits()-1)
	case reflect.String:
		return "a string"
	}
	return "a " + t.String()
}
