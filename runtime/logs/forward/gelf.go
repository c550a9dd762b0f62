package forward

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/json"
	"errors"
	"io"
	"os"
	"time"

	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// gelf speaks GELF 1.1 (Graylog's payload specification): compressed and chunked datagrams, or JSON ended by a zero byte.
type gelf struct {
	stream
	o     *logopts.GELFOptions
	fixed map[string]any
}

func newGELF(o *logopts.GELFOptions, info *spec.LogInfo, tag string) *gelf {
	g := &gelf{stream: stream{network: o.Network, address: o.Address}, o: o}
	host, _ := os.Hostname()
	g.fixed = map[string]any{"version": "1.1", "host": host, "_container_id": info.ContainerID,
		"_container_name": trimSlash(info.ContainerName), "_image_id": info.ImageID, "_image_name": info.ImageName,
		"_command": info.Command, "_tag": tag, "_created": info.Created}
	for _, m := range []map[string]string{info.Labels, info.Env} {
		for k, v := range m {
			if k != "id" { // not allowed by the specification
				g.fixed["_"+k] = v
			}
		}
	}
	return g
}

func (g *gelf) send(e *entry) error {
	if len(e.line) == 0 { // the specification demands a message
		return nil
	}
	m := make(map[string]any, len(g.fixed)+3)
	for k, v := range g.fixed {
		m[k] = v
	}
	m["short_message"] = string(e.line)
	m["timestamp"] = json.Number(unixMillis(e.at))
	m["level"] = severityInfo
	if e.stderr {
		m["level"] = severityError
	}
	if e.partial {
		m["_partial_message"] = "true"
	}
	data, err := json.Marshal(m)
	if err != nil {
		return err
	}
	if g.o.Network == "tcp" {
		return g.write(append(data, 0), writeTimeout)
	}
	if data, err = g.compress(data); err != nil {
		return err
	}
	return g.datagrams(data)
}

// unixMillis is seconds since 1970 with three decimals.
func unixMillis(t time.Time) string {
	ms := t.UnixMilli()
	b := []byte{}
	b = appendInt(b, ms/1000)
	b = append(b, '.', byte('0'+ms%1000/100), byte('0'+ms%100/10), byte('0'+ms%10))
	return string(b)
}

func appendInt(b []byte, n int64) []byte {
	if n >= 10 {
		b = appendInt(b, n/10)
	}
	return append(b, byte('0'+n%10))
}

func (g *gelf) compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	var z io.WriteCloser
	var err error
	switch g.o.Compression {
	case "gzip":
		z, err = gzip.NewWriterLevel(&b, g.o.Level)
	case "zlib":
		z, err = zlib.NewWriterLevel(&b, g.o.Level)
	default:
		return data, nil
	}
	if err != nil {
		return nil, err
	}
	if _, err := z.Write(data); err != nil {
		return nil, err
	}
	err = z.Close()
	return b.Bytes(), err
}

const (
	chunkSize = 1420
	maxChunks = 128
)

var errTooLong = errors.New("the message does not fit into 128 GELF chunks")

// datagrams sends data in one piece or in chunks: 0x1e 0x0f, 8 bytes of message ID, number, count, part.
func (g *gelf) datagrams(data []byte) error {
	if len(data) <= chunkSize {
		return g.write(data, writeTimeout)
	}
	const part = chunkSize - 12
	count := (len(data) + part - 1) / part
	if count > maxChunks {
		return errTooLong
	}
	var id [8]byte
	rand.Read(id[:])
	for i := range count {
		n := min(part, len(data))
		chunk := append([]byte{0x1e, 0x0f}, id[:]...)
		chunk = append(chunk, byte(i), byte(count))
		if err := g.write(append(chunk, data[:n]...), writeTimeout); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
