package spec

import (
	"encoding"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/opencontainers/runtime-spec/specs-go"
)

// FuzzDecode holds the fast decoding against encoding/json: what it accepts must be accepted there, and give the same.
func FuzzDecode(f *testing.F) {
	example, err := json.MarshalIndent(Example(), " ", "\t")
	if err != nil {
		f.Fatal(err)
	}
	for _, s := range []string{string(example), `{}`, ` {"ociVersion" : "1.2.0"} `, `null`, ``, `{"ociVersion":"a","ociVersion":"b"}`,
		`{"OCIVersion":"1"}`, `{"ociVersion":"\u0041"}`, "{\"hostname\":\"\xff\"}", "{\"hostname\":\"ü\"}", "{\"hostname\":\"\x01\"}", `{"x":[{"y":1e5}],"hostname":"h"}`,
		`{"x":[1,}]}`, `{"mounts":[]}`, `{"mounts":[{"options":null,"destination":"/a"},null,{"uidMappings":[{"hostID":4294967295}]}]}`,
		`{"process":{"user":{"uid":-1}}}`, `{"process":{"user":{"uid":01}}}`, `{"process":{"user":{"uid":1.0}}}`, `{"process":{"oomScoreAdj":-0}}`,
		`{"process":{"oomScoreAdj":null,"terminal":true,"noNewPrivileges":false,"apparmorProfile":null}}`, `{"process":{"terminal":tru}}`,
		`{"annotations":{"a":"b","a":"c","":null}}`, `{"annotations":{}}`, `{"linux":{"sysctl":null,"unified":{}}} x`,
		`{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":8,"minor":0,"weight":5}]},"hugepageLimits":[{"pageSize":"2MB","limit":18446744073709551615}]}}}`,
		`{"windows":{"credentialSpec":{"a":1}}}`, `{"linux":{"devices":[{"path":"/dev/x","type":"c","fileMode":438,"uid":0}]}}`, `{"process":`, `{"process":{"terminal":`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var got, want specs.Spec
		if !decode(data, &got) {
			return
		}
		if err := json.Unmarshal(data, &want); err != nil {
			t.Fatalf("accepted, but encoding/json says %v: %q", err, data)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("%q\n got %#v\nwant %#v", data, got, want)
		}
	})
}

// TestDecodeIsTaken: what engines write goes the fast way.
func TestDecodeIsTaken(t *testing.T) {
	data, err := json.Marshal(Example())
	if err != nil {
		t.Fatal(err)
	}
	var s specs.Spec
	if !decode(data, &s) || !reflect.DeepEqual(&s, Example()) {
		t.Errorf("the example was left to encoding/json, or came out differently")
	}
}

// TestNoTypeDecodesItself: decode does not look for UnmarshalJSON and UnmarshalText.
func TestNoTypeDecodesItself(t *testing.T) {
	seen := map[reflect.Type]bool{}
	var look func(typ reflect.Type)
	look = func(typ reflect.Type) {
		if seen[typ] {
			return
		}
		seen[typ] = true
		for _, i := range []reflect.Type{reflect.TypeFor[json.Unmarshaler](), reflect.TypeFor[encoding.TextUnmarshaler]()} {
			if typ.Implements(i) || reflect.PointerTo(typ).Implements(i) {
				t.Errorf("%v has its own %v", typ, i)
			}
		}
		switch typ.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			look(typ.Elem())
		case reflect.Struct:
			for i := range typ.NumField() {
				look(typ.Field(i).Type)
			}
		}
	}
	look(reflect.TypeFor[specs.Spec]())
}
