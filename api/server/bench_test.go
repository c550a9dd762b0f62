package server

import (
	"context"
	"testing"

	moby "github.com/moby/moby/client"
)

// What a client's first request costs, with and without asking for the version first.
func BenchmarkFirstRequest(b *testing.B) {
	f := newFake()
	for name, opts := range map[string][]moby.Opt{"negotiated": nil, "fixed": {moby.WithAPIVersion("1.56")}} {
		b.Run(name, func(b *testing.B) {
			sock := listen(b, f)
			b.ReportAllocs()
			for b.Loop() {
				c, err := moby.New(append([]moby.Opt{moby.WithHost("unix://" + sock)}, opts...)...)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := c.VolumeInspect(context.Background(), "x", moby.VolumeInspectOptions{}); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
