//go:build kernel

package e2e

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/shoalhq/shoal/test/world"
)

// What is made, removed and pruned is told, with the names that Docker gives it.
func TestEventsOfNetworksAndPrunes(t *testing.T) {
	w := world.New(t)
	for _, args := range []string{"network create one", "network create two", "network rm one", "network prune -f", "volume prune -f", "image prune -f"} {
		w.Must(w.Docker(strings.Fields(args)...))
	}
	out := w.Must(w.Docker("events", "--since", "1h", "--until", "-1s", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}"))
	for _, want := range []string{"network create one", "network create two", "network destroy one", "network destroy two", "network prune", "volume prune", "image prune"} {
		if strings.Count(out, want) != 1 {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// What happens to images is told in Docker's words: the ID or the name, and the image's labels.
func TestEventsOfImages(t *testing.T) {
	w := world.New(t)
	dir := write(t, t.TempDir(), map[string]string{"Dockerfile": "FROM hello\nLABEL team=a\n"})
	os.WriteFile(dir+"/root.tar", world.Archive(map[string]string{"f": "x"}), 0o644)
	ids := regexp.MustCompile("sha256:[0-9a-f]{64}")
	w.Must(w.Docker("create", "--name", "made", "hello"))
	read := func() []string {
		out := w.Must(w.Docker("events", "--since", "1h", "--until", "-1s", "--filter", "type=image",
			"--format", `{{.Action}}={{.Actor.Attributes.name}}{{with .Actor.Attributes.team}},{{.}}{{end}}`))
		return strings.Fields(ids.ReplaceAllString(out, "ID"))
	}
	told := len(read())
	for _, c := range []struct{ args, says string }{
		{"import " + dir + "/root.tar root:1", "tag=root:1 import=ID"},
		{"import -c LABEL&team=a " + dir + "/root.tar", "import=ID,a"},
		{"tag root:1 root:2", "tag=root:2"},
		{"commit -c LABEL&team=a made made:1", "create=ID,a tag=made:1,a"},
		{"commit made", "create=ID"},
		{"SHOAL build -q -t built:1 -t built:2 " + dir, "tag=built:1,a tag=built:2,a create=ID,a"},
		{"SHOAL build -q -t built:1 " + dir, "tag=built:1,a create=ID,a"},
		{"save -o " + dir + "/saved root:1 root:2", "save=ID"},
		{"rmi root:2", "untag=root:2"},
		{"rmi root:1", "untag=root:1 delete=ID"},
		{"load -i " + dir + "/saved", "load=ID load=ID"},
		{"rmi built:1 built:2", "untag=built:1,a untag=built:2,a delete=ID,a"},
	} {
		fields := strings.Fields(c.args)
		for i := range fields {
			fields[i] = strings.ReplaceAll(fields[i], "&", " ")
		}
		if fields[0] == "SHOAL" {
			w.Must(w.Shoal(fields[1:]...))
		} else {
			w.Must(w.Docker(fields...))
		}
		lines := read()
		want(t, c.args, strings.Join(lines[told:], " "), c.says)
		told = len(lines)
	}
}
