package importdocker

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What Docker left may be damaged in any way: its records make a request or an error.
func FuzzContainer(f *testing.F) {
	f.Add(`{"ID":"`+strings.Repeat("ab", 32)+`","Name":"/web","Config":{"Hostname":"abababababab","Labels":{"a":"b"}},"MountPoints":{"/d":{"Name":"v","RW":true}},`+
		`"NetworkSettings":{"Networks":{"front":{"Aliases":["w"]}}}}`, `{"NetworkMode":"front","Binds":["v:/d:ro","/a"],"Mounts":[{"Type":"volume","Target":"/m"}],"Links":["db:db"]}`)
	f.Add(`{"ID":"x"}`, `null`)
	f.Fuzz(func(t *testing.T, config, host string) {
		s := &Source{dir: t.TempDir()}
		var named struct{ ID string }
		json.Unmarshal([]byte(config), &named)
		dir := filepath.Join(s.dir, "containers", named.ID)
		if named.ID == "" || filepath.Dir(dir) != filepath.Join(s.dir, "containers") || os.MkdirAll(dir, 0o700) != nil {
			return
		}
		os.WriteFile(dir+"/config.v2.json", []byte(config), 0o600)
		os.WriteFile(dir+"/hostconfig.json", []byte(host), 0o600)
		list, problems := s.containers()
		if len(list)+len(problems) != 1 {
			t.Fatalf("%d containers, %d problems", len(list), len(problems))
		}
		for _, c := range list {
			c.refusal()
			if body, err := c.body("image", nil); err == nil && !json.Valid(body) {
				t.Fatalf("%s", body)
			}
		}
	})
}

func FuzzNetwork(f *testing.F) {
	f.Add(`{"id":"99015ad725a20b41","name":"back","networkType":"bridge","enableIPv6":false,"generic":{"com.docker.network.generic":{"com.docker.network.bridge.name":"br-my"}},` +
		`"ipamType":"default","ipamV4Config":"[{\"PreferredPool\":\"\"}]","ipamV4Info":"[{\"IPAMData\":\"{\\\"Pool\\\":\\\"172.18.0.0/16\\\"}\"}]","labels":{"l":"1"},"scope":"local"}`)
	f.Fuzz(func(t *testing.T, record string) {
		var n network
		if json.Unmarshal([]byte(record), &n) != nil {
			return
		}
		n.refusal()
		for _, chosen := range []bool{true, false} {
			if body, _, err := n.body(chosen); err == nil && !json.Valid(body) {
				t.Fatalf("%s", body)
			}
		}
	})
}

// The headers of a layer: the size that is announced is the size that is written, or there is an error.
func FuzzSplit(f *testing.F) {
	f.Add([]byte(`{"type":2,"payload":"YWJj","position":0}` + "\n" + `{"type":1,"name":"file","size":1,"payload":"AAAAAAAAAAA=","position":1}` + "\n"))
	layer := f.TempDir()
	os.WriteFile(layer+"/file", []byte("x"), 0o600)
	f.Fuzz(func(t *testing.T, split []byte) {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		z.Write(split)
		z.Close()
		path := filepath.Join(t.TempDir(), "split")
		if err := os.WriteFile(path, b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		size, err := splitSize(path)
		if err != nil {
			return
		}
		var out bytes.Buffer
		if err := assemble(&out, path, layer); err == nil && int64(out.Len()) != size {
			t.Fatalf("%d bytes were announced, %d written", size, out.Len())
		}
	})
}
