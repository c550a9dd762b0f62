package initproc

import (
	"encoding/binary"
	"fmt"
	"reflect"

	"github.com/shoalhq/shoal/lib/errs"
)

// Both sides of the configuration are the same binary, so it needs no names: fields go in order, numbers as varints,
// strings and lists with their length before them. What encoding/json does the first time it meets a type costs more
// than the whole talk, and every init is a first time.

// Encode packs the configuration for init.
func (c *Config) Encode() ([]byte, error) {
	return encode(make([]byte, 0, 4096), reflect.ValueOf(c).Elem())
}

// Decode is the reverse of Encode.
func (c *Config) Decode(data []byte) error {
	d := decoder{data}
	if err := d.value(reflect.ValueOf(c).Elem()); err != nil {
		return err
	}
	if len(d.rest) > 0 {
		return errs.New(errs.Damaged, "%d bytes are left over", len(d.rest))
	}
	return nil
}

func encode(b []byte, v reflect.Value) (_ []byte, err error) {
	switch v.Kind() {
	case reflect.Bool:
		if v.Bool() {
			return append(b, 1), nil
		}
		return append(b, 0), nil
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return binary.AppendVarint(b, v.Int()), nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return binary.AppendUvarint(b, v.Uint()), nil
	case reflect.String:
		b = binary.AppendUvarint(b, uint64(v.Len()))
		return append(b, v.String()...), nil
	case reflect.Struct:
		for i := 0; i < v.NumField() && err == nil; i++ {
			b, err = encode(b, v.Field(i))
		}
		return b, err
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, 0), nil
		}
		return encode(append(b, 1), v.Elem())
	case reflect.Slice:
		if v.IsNil() {
			return append(b, 0), nil
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		for i := 0; i < v.Len() && err == nil; i++ {
			b, err = encode(b, v.Index(i))
		}
		return b, err
	case reflect.Map:
		if v.IsNil() {
			return append(b, 0), nil
		}
		b = binary.AppendUvarint(b, uint64(v.Len())+1)
		for it := v.MapRange(); err == nil && it.Next(); {
			if b, err = encode(b, it.Key()); err == nil {
				b, err = encode(b, it.Value())
			}
		}
		return b, err
	}
	return nil, fmt.Errorf("a %s cannot be sent to init", v.Type())
}

type decoder struct{ rest []byte }

func (d *decoder) value(v reflect.Value) (err error) {
	switch v.Kind() {
	case reflect.Bool:
		n, err := d.number()
		v.SetBool(n != 0)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, size := binary.Varint(d.rest)
		if size <= 0 {
			return errShort
		}
		d.rest = d.rest[size:]
		v.SetInt(n)
		return nil
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := d.number()
		v.SetUint(n)
		return err
	case reflect.String:
		n, err := d.number()
		if err != nil || n > uint64(len(d.rest)) {
			return errShort
		}
		v.SetString(string(d.rest[:n]))
		d.rest = d.rest[n:]
		return nil
	case reflect.Struct:
		for i := 0; i < v.NumField() && err == nil; i++ {
			err = d.value(v.Field(i))
		}
		return err
	case reflect.Pointer:
		n, err := d.number()
		if err != nil || n == 0 {
			return err
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem())
	case reflect.Slice, reflect.Map:
		n, err := d.number()
		if err != nil || n == 0 {
			return err
		}
		if n--; n > uint64(len(d.rest)) { // an element has at least one byte
			return errShort
		}
		return d.list(v, int(n))
	}
	return fmt.Errorf("a %s cannot be sent to init", v.Type())
}

func (d *decoder) list(v reflect.Value, n int) (err error) {
	if v.Kind() == reflect.Slice {
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := 0; i < n && err == nil; i++ {
			err = d.value(v.Index(i))
		}
		return err
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), n))
	for i := 0; i < n && err == nil; i++ {
		key, elem := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		if err = d.value(key); err == nil {
			err = d.value(elem)
		}
		v.SetMapIndex(key, elem)
	}
	return err
}

func (d *decoder) number() (uint64, error) {
	n, size := binary.Uvarint(d.rest)
	if size <= 0 {
		return 0, errShort
	}
	d.rest = d.rest[size:]
	return n, nil
}

var errShort = errs.New(errs.Damaged, "the message is cut short")
