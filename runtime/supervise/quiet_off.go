//go:build !lean

package supervise

// quiet is for builds with the tag lean (quiet_lean.go).
func quiet() {}
