package access

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestScopesAreChecked(t *testing.T) {
	for name, tc := range map[string]struct {
		s    Scope
		want string // "" is good
	}{
		"good":         {Scope{Name: "web", Verbs: []Verb{Logs, List, List}, Labels: []string{"team=web", "x"}}, ""},
		"no verb":      {Scope{Name: "web"}, "good for nothing"},
		"engine":       {Scope{Name: "web", Verbs: []Verb{Engine}}, `"engine" cannot be given`},
		"exec":         {Scope{Name: "web", Verbs: []Verb{"exec"}}, "root on this machine"},
		"path as name": {Scope{Name: "../web", Verbs: []Verb{List}}, "socket name"},
		"dot as name":  {Scope{Name: "..", Verbs: []Verb{List}}, "socket name"},
		"no label":     {Scope{Name: "web", Verbs: []Verb{List}, Labels: []string{"=x"}}, "has no name"},
		"event's own":  {Scope{Name: "web", Verbs: []Verb{Events}, Labels: []string{"image=x"}}, "cannot be told"},
	} {
		err := tc.s.Validate()
		if tc.want == "" && (err != nil || len(tc.s.Verbs) != 2) || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v %v", name, err, tc.s.Verbs)
		}
	}
}

func TestWhatHasNoLineNeedsTheFullSocket(t *testing.T) {
	s := Scope{Name: "all", Labels: nil}
	for _, v := range Known() {
		s.Verbs = append(s.Verbs, Verb(v))
	}
	for _, pattern := range []string{"GET /nowhere", "GET /images/{rest...}"} {
		r, known := RuleFor(pattern, "/images/x/secret")
		if known || !errs.Is(s.Permits(r, "GET", "/x"), errs.Forbidden) {
			t.Errorf("%s: %v %v", pattern, r, known)
		}
	}
	// The most powerful scope still has nothing that makes, runs or reads files.
	for pattern, r := range table {
		open := s.Permits(r, "X", "/x") == nil
		for _, word := range []string{"create", "exec", "archive", "export", "attach", "build", "commit", "load", "push", "prune", "update", "info", "shoal", "PUT", "swarm"} {
			if open && strings.Contains(pattern, word) {
				t.Errorf("%s is open to scoped sockets", pattern)
			}
		}
	}
}

func TestLabels(t *testing.T) {
	s := Scope{Labels: []string{"team=web", "tier"}}
	for _, tc := range []struct {
		labels map[string]string
		want   bool
	}{
		{nil, false}, {map[string]string{"team": "web"}, false}, {map[string]string{"team": "web", "tier": ""}, true},
		{map[string]string{"team": "webby", "tier": "x"}, false},
	} {
		if s.Sees(tc.labels) != tc.want {
			t.Errorf("%v", tc.labels)
		}
	}
	e := model.Event{Type: "container", ID: "1", Action: "exec_start: mysql -psecret", Attrs: map[string]string{"team": "web", "tier": "1"}}
	if got, ok := s.Event(e); !ok || got.Action != "exec_start" {
		t.Error(got, ok)
	}
	e.Action = "health_status: healthy"
	if got, _ := s.Event(e); got.Action != e.Action {
		t.Error(got)
	}
	e.Type = "network"
	if _, ok := s.Event(e); ok {
		t.Error("events of other objects are shown")
	}
	f := model.Filters{"label": {"a"}}
	if got := s.Narrow(f); len(got["label"]) != 3 || len(f["label"]) != 1 {
		t.Error(got, f)
	}
}

func TestSecretsAreTakenOut(t *testing.T) {
	var v model.ContainerView
	m := model.Mount{Type: "volume", Target: "/d", Volume: &model.VolumeOptions{DriverOptions: map[string]string{"o": "password=SECRET"}}}
	v.Spec.Process.Env = []string{"A=SECRET"}
	v.Spec.Log.Options = map[string]string{"splunk-token": "SECRET"}
	v.Spec.Storage.Mounts = []model.Mount{m}
	v.Mounts = []model.MountPoint{{Spec: &m}}
	Container(&v)
	out, _ := json.Marshal(v)
	if strings.Contains(string(out), "SECRET") {
		t.Errorf("%s", out)
	}
	if m.Volume.DriverOptions["o"] == hidden {
		t.Error("the record itself was changed")
	}
	vol := model.Volume{Options: map[string]string{"o": "SECRET"}}
	Volume(&vol)
	img := model.Image{Config: model.ImageConfig{Env: []string{"SECRET"}}, History: []model.ImageHistory{{CreatedBy: "ENV A=SECRET"}}}
	Image(&img)
	out, _ = json.Marshal([]any{vol, img})
	if strings.Contains(string(out), "SECRET") {
		t.Errorf("%s", out)
	}
}

func FuzzDetail(f *testing.F) {
	f.Add([]byte(`{"Image":"x","HostConfig":{"Binds":["/:/h"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range []string{"POST /containers/create", "POST /containers/{name}/exec"} {
			if d := Detail(p, b); d != nil {
				if _, err := json.Marshal(d); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
