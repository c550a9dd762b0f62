package store

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

func TestApplyChanges(t *testing.T) {
	c := model.ImageConfig{Env: []string{"A=1"}, WorkingDir: "/srv"}
	err := ApplyChanges(&c, []string{`CMD ["a", "b c"]`, "ENTRYPOINT run me", `ENV A="two words" B=3`, "ENV OLD form of it", "LABEL x='y z'", "EXPOSE 80 8000-8002/udp",
		"USER me:us", "WORKDIR sub", `VOLUME ["/data", "/a"]`, "VOLUME /b", "ONBUILD RUN x", "STOPSIGNAL SIGINT", `SHELL ["/bin/bash", "-c"]`,
		"HEALTHCHECK --interval=5s --retries=2 CMD curl -f localhost", "\n# a comment\ncmd again"})
	if err != nil {
		t.Fatal(err)
	}
	want := model.ImageConfig{User: "me:us", ExposedPorts: []string{"80/tcp", "8000/udp", "8001/udp", "8002/udp"},
		Env: []string{"A=two words", "B=3", "OLD=form of it"}, Entrypoint: []string{"/bin/sh", "-c", "run me"}, Cmd: []string{"/bin/bash", "-c", "again"},
		Volumes: []string{"/a", "/b", "/data"}, WorkingDir: "/srv/sub", Labels: map[string]string{"x": "y z"}, StopSignal: "SIGINT",
		Healthcheck: &model.Healthcheck{Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: 5 * time.Second, Retries: 2},
		OnBuild:     []string{"RUN x"}, Shell: []string{"/bin/bash", "-c"}}
	if d := cmp.Diff(want, c); d != "" {
		t.Fatal(d)
	}
	for _, bad := range []string{"RUN x", "FROM y", "ENV", "ENV A", `LABEL "a`, "EXPOSE x", "EXPOSE 0", "EXPOSE 9-8", "EXPOSE 80/icmp", "SHELL sh",
		"HEALTHCHECK MAYBE", "HEALTHCHECK --retries=x CMD y", "HEALTHCHECK --speed=1s CMD y", "nonsense"} {
		if err := ApplyChanges(&model.ImageConfig{}, []string{bad}); !errs.Is(err, errs.Invalid) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func FuzzApplyChanges(f *testing.F) {
	f.Add(`ENV A="b c" D=\e`)
	f.Fuzz(func(t *testing.T, line string) { ApplyChanges(&model.ImageConfig{}, []string{line}) })
}
