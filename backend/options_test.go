package backend

import (
	"encoding/json"
	"testing"
)

func TestDecode(t *testing.T) {
	type options struct {
		Port  int
		VNI   uint32
		GBP   bool
		Extra string
	}
	for text, want := range map[string]options{
		`{"Type": "udp"}`:                  {Port: 7},
		`{"port": 8, "vni": 9, "other":1}`: {Port: 8, VNI: 9},
		`{"Port": null, "GBP": true}`:      {Port: 7, GBP: true},
	} {
		got := options{Port: 7}
		if err := (Config{Options: json.RawMessage(text)}).Decode(&got); err != nil || got != want {
			t.Errorf("%s: %+v %v, want %+v", text, got, err, want)
		}
	}
	got := options{Port: 7}
	if err := (Config{}).Decode(&got); err != nil || got.Port != 7 {
		t.Errorf("no options: %+v %v", got, err)
	}
	for text, want := range map[string]string{
		`{"port": "8285"}`:     `Backend.Port "8285" must be a whole number`,
		`{"Port": 1.5}`:        `Backend.Port 1.5 must be a whole number`,
		`{"VNI": 99999999999}`: `Backend.VNI 99999999999 must be a whole number in 0 to 4294967295`,
		`{"VNI": -1}`:          `Backend.VNI -1 must be a whole number in 0 to 4294967295`,
		`{"GBP": "yes"}`:       `Backend.GBP "yes" must be true or false`,
		`{"Extra": [1]}`:       `Backend.Extra [1] must be a string`,
		`[]`:                   `decode Backend []: json: cannot unmarshal array into Go value of type backend.options`,
	} {
		var o options
		if err := (Config{Options: json.RawMessage(text)}).Decode(&o); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
}
