package engine

import (
	"regexp"
	"strings"

	"github.com/shoalhq/shoal/model"
)

// logTarget says where a container's output goes, with the labels and variables that its log options choose.
func (e *Engine) logTarget(c *model.Container) LogTarget {
	opts := c.Spec.Log.Options
	t := LogTarget{Driver: c.Spec.Log.Driver, Path: c.Runtime.LogPath, Options: opts}
	env := map[string]string{}
	if opts["env"] != "" || opts["env-regex"] != "" {
		for _, entry := range c.Spec.Process.Env {
			if name, value, ok := strings.Cut(entry, "="); ok {
				env[name] = value
			}
		}
	}
	t.Labels = choose(c.Spec.Labels, opts["labels"], opts["labels-regex"])
	t.Env = choose(env, opts["env"], opts["env-regex"])
	return t
}

// choose picks by comma-separated names and by a regular expression.
func choose(from map[string]string, names, expr string) map[string]string {
	if names == "" && expr == "" {
		return nil
	}
	out := map[string]string{}
	for name := range strings.SplitSeq(names, ",") {
		if v, ok := from[strings.TrimSpace(name)]; ok {
			out[strings.TrimSpace(name)] = v
		}
	}
	if re, err := regexp.Compile(expr); err == nil && expr != "" {
		for name, v := range from {
			if re.MatchString(name) {
				out[name] = v
			}
		}
	}
	return out
}
