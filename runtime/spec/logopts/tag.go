package logopts

import (
	"fmt"
	"strings"

	"github.com/shoalhq/shoal/runtime/spec"
)

// fields are what a tag may say, by the names of Docker's templates. The supervisor evaluates tags itself, because the
// template package of the standard library would double its memory.
var fields = map[string]func(i *spec.LogInfo) string{
	"ID":            func(i *spec.LogInfo) string { return short(i.ContainerID) },
	"FullID":        func(i *spec.LogInfo) string { return i.ContainerID },
	"ContainerID":   func(i *spec.LogInfo) string { return i.ContainerID },
	"Name":          func(i *spec.LogInfo) string { return strings.TrimPrefix(i.ContainerName, "/") },
	"ContainerName": func(i *spec.LogInfo) string { return i.ContainerName },
	"ImageID":       func(i *spec.LogInfo) string { return short(i.ImageID) },
	"ImageFullID":   func(i *spec.LogInfo) string { return i.ImageID },
	"ImageName":     func(i *spec.LogInfo) string { return i.ImageName },
	"Command":       func(i *spec.LogInfo) string { return i.Command },
	"DaemonName":    func(i *spec.LogInfo) string { return i.DaemonName },
}

// short is the form of an ID that people see. (lib/ids has it too, with randomness that the runtime need not link.)
func short(id string) string {
	if i := strings.IndexByte(id, ':'); i >= 0 {
		id = id[i+1:]
	}
	return id[:min(len(id), 12)]
}

var functions = map[string]func(string) string{
	"lower": strings.ToLower, "upper": strings.ToUpper, "title": title,
}

func title(s string) string {
	if s == "" {
		return s
	}
	return strings.ToUpper(s[:1]) + s[1:]
}

// CheckTag says what is wrong with a tag.
func CheckTag(tag string) error {
	_, err := Tag(tag, &spec.LogInfo{})
	return err
}

// Tag evaluates a tag: text with {{.Field}}, {{lower .Field}}, {{.Field | upper}}, {{index .Labels "name"}} or
// {{index .Env "NAME"}}.
func Tag(tag string, info *spec.LogInfo) (string, error) {
	var out strings.Builder
	for {
		text, rest, ok := strings.Cut(tag, "{{")
		out.WriteString(text)
		if !ok {
			return out.String(), nil
		}
		expr, after, ok := strings.Cut(rest, "}}")
		if !ok {
			return "", fmt.Errorf("the template %q has {{ without }}", tag)
		}
		v, err := eval(strings.TrimSpace(strings.Trim(strings.TrimSpace(expr), "-")), info)
		if err != nil {
			return "", err
		}
		out.WriteString(v)
		tag = after
	}
}

func eval(expr string, info *spec.LogInfo) (string, error) {
	var value string
	for n, stage := range strings.Split(expr, "|") {
		words := strings.Fields(stage)
		var fn func(string) string
		if len(words) > 0 && functions[words[0]] != nil {
			fn, words = functions[words[0]], words[1:]
		}
		switch {
		case n > 0 && fn != nil && len(words) == 0:
		case n == 0 && len(words) == 1 && strings.HasPrefix(words[0], ".") && fields[words[0][1:]] != nil:
			value = fields[words[0][1:]](info)
		case n == 0 && len(words) == 3 && words[0] == "index" && (words[1] == ".Labels" || words[1] == ".Env" ||
			words[1] == ".ContainerLabels"):
			m := info.Labels
			if words[1] == ".Env" {
				m = info.Env
			}
			value = m[strings.Trim(words[2], "\"`")]
		default:
			return "", fmt.Errorf("the template part {{%s}} is not understood: use {{.ID}} {{.FullID}} {{.Name}} {{.ImageID}} {{.ImageFullID}} {{.ImageName}} {{.Command}} {{.DaemonName}}, with lower, upper or title", expr)
		}
		if fn != nil {
			value = fn(value)
		}
	}
	return value, nil
}
