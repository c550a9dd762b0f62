package server

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// pausing sends something and then nothing more until its channel is closed.
type pausing struct {
	sent bool
	more chan struct{}
}

func (p *pausing) Read(b []byte) (int, error) {
	if !p.sent {
		p.sent = true
		return copy(b, "x"), nil
	}
	<-p.more
	return 0, io.EOF
}

// Who is refused while still sending gets the reason at once. Were it sent behind the rest, a client that has much to send would
// see a broken pipe in its place.
func TestRefusedWhileSending(t *testing.T) {
	defer func(d time.Duration) { restTime = d }(restTime)
	restTime = time.Hour
	_, sock := serve(t, newFake())
	body := &pausing{more: make(chan struct{})}
	defer close(body.more)
	req, err := http.NewRequest("POST", "http://x/v1.50/nothing", io.NopCloser(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := over(sock).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); err != nil || res.StatusCode != 404 || !strings.Contains(string(text), "page not found") {
		t.Errorf("%d %s %v", res.StatusCode, text, err)
	}
}
