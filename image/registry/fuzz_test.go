package registry

import "testing"

// FuzzSaid reads the error documents of registries.
func FuzzSaid(f *testing.F) {
	f.Add([]byte(`{"errors":[{"code":"DENIED","message":"no","detail":{"a":1}}]}`))
	f.Add([]byte("<html>"))
	f.Fuzz(func(_ *testing.T, b []byte) { said(b) })
}
