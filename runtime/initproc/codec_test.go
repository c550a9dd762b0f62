package initproc

import (
	"reflect"
	"testing"
)

// fill sets every field below v to something that is not its zero value, so that a type which cannot be sent shows.
func fill(t *testing.T, v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-7)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(200)
	case reflect.String:
		v.SetString(path)
	case reflect.Struct:
		for i := range v.NumField() {
			if !v.Type().Field(i).IsExported() {
				t.Errorf("%s.%s is not exported: it cannot be sent", path, v.Type().Field(i).Name)
				continue
			}
			fill(t, v.Field(i), path+"."+v.Type().Field(i).Name)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(t, v.Elem(), path)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(t, v.Index(0), path+"[0]")
		fill(t, v.Index(1), path+"[1]")
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		elem := reflect.New(v.Type().Elem()).Elem()
		fill(t, elem, path+"[]")
		key := reflect.New(v.Type().Key()).Elem()
		fill(t, key, path+"[]")
		v.SetMapIndex(key, elem)
	default:
		t.Errorf("%s is a %s: it cannot be sent", path, v.Type())
	}
}

func TestConfigComesThroughWhole(t *testing.T) {
	var full Config
	fill(t, reflect.ValueOf(&full).Elem(), "Config")
	empty := Config{StartContainer: nil, Sysctl: map[string]string{}}
	for _, c := range []*Config{&full, &empty} {
		data, err := c.Encode()
		if err != nil {
			t.Fatal(err)
		}
		var got Config
		if err := got.Decode(data); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(&got, c) {
			t.Errorf("got %+v, want %+v", got, c)
		}
		for n := range data {
			if new(Config).Decode(data[:n]) == nil {
				t.Fatalf("%d of %d bytes were taken for a whole configuration", n, len(data))
			}
		}
		if new(Config).Decode(append(data, 0)) == nil {
			t.Error("a byte too many was not noticed")
		}
	}
}
