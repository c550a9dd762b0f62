package doctor

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestRedact(t *testing.T) {
	const secret = "hUnter2"
	doc := `{"Config":{"Env":["A=hUnter2","PATH=/bin"],"Labels":{"db.password":"hUnter2","traefik.auth":"hUnter2","com.example.k":"aZ9hUnter2aZ9aZ9aZ9aZ9aZ9","team":"web"},
		"Cmd":["mysql","--password","hUnter2","--api-key=hUnter2","postgres://u:hUnter2@db/x","-e","DB_PASSWORD=hUnter2"]},
		"HostConfig":{"LogConfig":{"Config":{"splunk-token":"hUnter2","max-size":"10m"}}},
		"Options":{"o":"addr=1.2.3.4,username=x,password=hUnter2","type":"cifs"},"HttpProxy":"http://u:hUnter2@proxy:3128",
		"Note":"Authorization: Bearer hUnter2 and token: \"hUnter2\" eyJhbGciOiJIUzI1NiJ9.hUnter2hUnter2.x","Pem":"-----BEGIN EC PRIVATE KEY-----\nhUnter2",
		"Image":"sha256:0123456789abcdef0123456789abcdef","State":{"ExitCode":3}}`
	var v any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatal(err)
	}
	b, _ := json.Marshal(Redact(v))
	if strings.Contains(string(b), secret) {
		t.Errorf("%s", b)
	}
	for _, kept := range []string{"PATH=", "db.password", `"team":"web"`, "10m", "cifs", "addr=1.2.3.4", "@proxy:3128", "sha256:0123456789abcdef", `"ExitCode":3`, "mysql"} {
		if !strings.Contains(string(b), kept) {
			t.Errorf("%q is gone from %s", kept, b)
		}
	}
}

func FuzzRedact(f *testing.F) {
	f.Add(`{"Env":["A=b"],"x":"password=y"}`)
	f.Fuzz(func(t *testing.T, s string) {
		var v any
		if json.Unmarshal([]byte(s), &v) == nil {
			if _, err := json.Marshal(Redact(v)); err != nil {
				t.Fatal(err)
			}
		}
		RedactText(s)
	})
}
