package forward

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/runtime/spec"
	"github.com/shoalhq/shoal/runtime/spec/logopts"
)

// fluentd speaks Fluentd's forward protocol, version 1, in message mode: [tag, time, record] or with an option as MessagePack.
type fluentd struct {
	stream
	o      *logopts.FluentdOptions
	tag    string
	record map[string]string
}

func newFluentd(o *logopts.FluentdOptions, info *spec.LogInfo, tag string) *fluentd {
	f := &fluentd{stream: stream{network: o.Network, address: o.Address}, o: o, tag: tag, record: map[string]string{}}
	if o.Network == "tls" {
		f.tls = &logopts.TLSFiles{}
	}
	maps.Copy(f.record, info.Labels)
	maps.Copy(f.record, info.Env)
	f.record["container_id"], f.record["container_name"] = info.ContainerID, "/"+trimSlash(info.ContainerName) // with the slash, as Docker's
	return f
}

func (f *fluentd) send(e *entry) error {
	record := maps.Clone(f.record)
	record["source"] = "stdout"
	if e.stderr {
		record["source"] = "stderr"
	}
	record["log"] = string(e.line)
	if e.piece != nil {
		record["partial_message"], record["partial_id"] = "true", e.piece.id
		record["partial_ordinal"], record["partial_last"] = strconv.Itoa(e.piece.ordinal), strconv.FormatBool(!e.partial)
	}
	size, chunk := 3, ""
	if f.o.RequestAck {
		var id [16]byte
		rand.Read(id[:])
		size, chunk = 4, base64.StdEncoding.EncodeToString(id[:])
	}
	b := []byte{0x90 | byte(size)}
	b = packString(b, f.tag)
	if f.o.SubSecond {
		b = append(b, 0xd7, 0) // extension type 0, EventTime
		b = binary.BigEndian.AppendUint32(b, uint32(e.at.Unix()))
		b = binary.BigEndian.AppendUint32(b, uint32(e.at.Nanosecond()))
	} else {
		b = append(b, 0xd3)
		b = binary.BigEndian.AppendUint64(b, uint64(e.at.Unix()))
	}
	b = packMap(b, record)
	if f.o.RequestAck {
		b = packMap(b, map[string]string{"chunk": chunk})
	}
	if err := f.write(b, f.o.WriteTimeout); err != nil {
		return err
	}
	if f.o.RequestAck {
		return f.ack(chunk)
	}
	return nil
}

// ack reads {"ack": chunk}.
func (f *fluentd) ack(chunk string) error {
	want := packMap(nil, map[string]string{"ack": chunk})
	got := make([]byte, len(want))
	f.conn.SetReadDeadline(time.Now().Add(f.o.WriteTimeout))
	if _, err := io.ReadFull(f.conn, got); err != nil {
		return err
	}
	if string(got) != string(want) {
		return errs.New(errs.Unavailable, "fluentd acknowledged something else")
	}
	return nil
}

// packMap and packString write MessagePack.
func packMap(b []byte, m map[string]string) []byte {
	if len(m) < 16 {
		b = append(b, 0x80|byte(len(m)))
	} else {
		b = append(b, 0xde, byte(len(m)>>8), byte(len(m)))
	}
	for _, k := range slices.Sorted(maps.Keys(m)) {
		b = packString(packString(b, k), m[k])
	}
	return b
}

func packString(b []byte, s string) []byte {
	switch n := len(s); {
	case n < 32:
		b = append(b, 0xa0|byte(n))
	case n < 1<<8:
		b = append(b, 0xd9, byte(n))
	case n < 1<<16:
		b = append(b, 0xda, byte(n>>8), byte(n))
	default:
		b = binary.BigEndian.AppendUint32(append(b, 0xdb), uint32(n))
	}
	return append(b, s...)
}
