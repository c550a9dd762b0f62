// Package server serves the Docker Engine API, versions types.MinVersion to types.MaxVersion, and Shoal's additions under
// /shoal/. It decodes requests, asks the rooms through the small interfaces of backends.go in the model's nouns, and writes
// answers in the shape of the client's version (api/convert). It must not decide anything about containers, images,
// networks or volumes, nor import the rooms that do.
//
// Use (the composition root):
//
//	srv := server.New(server.Config{Backends: server.Backends{Containers: eng, ...}, Version: "0.1.0", Log: log})
//	srv.Handle("GET /shoal/doctor", handler)       // additions, before Serve
//	go srv.Serve(listener)                         // once per listener
//	srv.Shutdown(ctx)                              // no new requests; ends streams; waits for the rest
//
// A nil backend answers with 501 and a sentence.
package server
