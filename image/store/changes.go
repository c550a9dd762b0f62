package store

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/moby/buildkit/frontend/dockerfile/shell"

	"github.com/moby/sys/signal"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// ApplyChanges applies Dockerfile instructions, as `commit --change` and `import --change` take them, to a config.
func ApplyChanges(c *model.ImageConfig, changes []string) error {
	for _, line := range changes {
		for one := range strings.SplitSeq(line, "\n") {
			if one = strings.TrimSpace(one); one == "" || strings.HasPrefix(one, "#") {
				continue
			}
			if err := applyChange(c, one); err != nil {
				return errs.New(errs.Invalid, "change %q: %w", one, err)
			}
		}
	}
	return nil
}

func applyChange(c *model.ImageConfig, line string) error {
	verb, rest, _ := strings.Cut(line, " ")
	rest = strings.TrimSpace(rest)
	verb = strings.ToUpper(verb)
	if rest == "" && verb != "CMD" && verb != "ENTRYPOINT" {
		return errs.New(errs.Invalid, "%s requires at least one argument", verb)
	}
	if slices.Contains([]string{"EXPOSE", "STOPSIGNAL", "USER", "VOLUME", "WORKDIR"}, verb) && !strings.HasPrefix(rest, "[") {
		var err error
		if rest, err = expand(c, rest); err != nil {
			return err
		}
	}
	switch verb {
	case "CMD":
		c.Cmd = command(c, rest)
	case "ENTRYPOINT":
		c.Entrypoint = command(c, rest)
	case "ENV":
		return pairs(c, rest, func(k, v string) { c.Env = setEnv(c.Env, k, v) })
	case "LABEL":
		return pairs(c, rest, func(k, v string) {
			if c.Labels == nil {
				c.Labels = map[string]string{}
			}
			c.Labels[k] = v
		})
	case "EXPOSE":
		return expose(c, rest)
	case "USER":
		c.User = rest
	case "WORKDIR":
		c.WorkingDir = workdir(c.WorkingDir, rest)
	case "VOLUME":
		c.Volumes = union(c.Volumes, list(rest))
	case "ONBUILD":
		c.OnBuild = append(c.OnBuild, rest)
	case "STOPSIGNAL":
		if sig, err := signal.ParseSignal(rest); err != nil || sig <= 0 {
			return errs.New(errs.Invalid, "invalid signal: %s; want a name such as SIGTERM or a number", rest)
		}
		c.StopSignal = rest
	case "SHELL":
		shell, ok := jsonList(rest)
		if !ok || len(shell) == 0 {
			return errs.New(errs.Invalid, "SHELL wants a JSON list such as [\"/bin/sh\", \"-c\"]")
		}
		c.Shell = shell
	case "HEALTHCHECK":
		return healthcheck(c, rest)
	default:
		return errs.New(errs.Invalid, "%s is not a valid change command; use CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, SHELL, STOPSIGNAL, USER, VOLUME or WORKDIR", verb)
	}
	return nil
}

func jsonList(s string) ([]string, bool) {
	var out []string
	if !strings.HasPrefix(s, "[") || json.Unmarshal([]byte(s), &out) != nil {
		return nil, false
	}
	return out, true
}

func list(s string) []string {
	if out, ok := jsonList(s); ok {
		return out
	}
	return strings.Fields(s)
}

// command is the exec form (a JSON list) or the shell form.
func command(c *model.ImageConfig, s string) []string {
	if out, ok := jsonList(s); ok {
		return out
	}
	if s == "" {
		return []string{}
	}
	shell := c.Shell
	if len(shell) == 0 {
		shell = []string{"/bin/sh", "-c"}
	}
	return append(slices.Clone(shell), s)
}

func setEnv(env []string, k, v string) []string {
	for i, e := range env {
		if strings.HasPrefix(e, k+"=") {
			env[i] = k + "=" + v
			return env
		}
	}
	return append(env, k+"="+v)
}

// expand takes the quotes out of a word and puts in the values of the variables it names, as in a Dockerfile.
func expand(c *model.ImageConfig, word string) (string, error) {
	out, _, err := shell.NewLex('\\').ProcessWord(word, shell.EnvsFromSlice(c.Env))
	return out, err
}

// pairs reads "K=V K2="quoted value"" and the old form "K value". Variables stand for what they were before the line.
func pairs(c *model.ImageConfig, s string, set func(k, v string)) error {
	before := c.Clone()
	words, err := split(s)
	if err != nil {
		return err
	}
	if !strings.Contains(words[0], "=") {
		k, v, ok := strings.Cut(s, " ")
		if !ok {
			return errs.New(errs.Invalid, "%q has no value: want NAME=VALUE", s)
		}
		if v, err = expand(&before, strings.TrimSpace(v)); err != nil {
			return err
		}
		set(k, v)
		return nil
	}
	for _, w := range words {
		k, v, ok := strings.Cut(w, "=")
		if !ok || k == "" {
			return errs.New(errs.Invalid, "%q is not NAME=VALUE", w)
		}
		if k, err = expand(&before, k); err != nil {
			return err
		}
		if v, err = expand(&before, v); err != nil {
			return err
		}
		set(k, v)
	}
	return nil
}

// split cuts into words as a shell would: single and double quotes, backslash. They stay in the words.
func split(s string) ([]string, error) {
	var words []string
	var word strings.Builder
	quote, started := rune(0), false
	escaped := false
	for _, r := range s {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case r == '\\' && quote != '\'':
			word.WriteRune(r)
			escaped, started = true, true
		case quote != 0 && r == quote:
			word.WriteRune(r)
			quote = 0
		case quote == 0 && (r == '"' || r == '\''):
			word.WriteRune(r)
			quote, started = r, true
		case quote == 0 && (r == ' ' || r == '\t'):
			if started {
				words = append(words, word.String())
				word.Reset()
			}
			started = false
		default:
			word.WriteRune(r)
			started = true
		}
	}
	if quote != 0 || escaped {
		return nil, errs.New(errs.Invalid, "a quote is not closed")
	}
	if started {
		words = append(words, word.String())
	}
	return words, nil
}

func expose(c *model.ImageConfig, s string) error {
	var ports []string
	for _, p := range strings.Fields(s) {
		number, proto, ok := strings.Cut(p, "/")
		if !ok {
			proto = "tcp"
		}
		first, last, isRange := strings.Cut(number, "-")
		if !isRange {
			last = first
		}
		from, err1 := strconv.ParseUint(first, 10, 16)
		to, err2 := strconv.ParseUint(last, 10, 16)
		proto = strings.ToLower(proto)
		if err1 != nil || err2 != nil || from == 0 || to < from || proto != "tcp" && proto != "udp" && proto != "sctp" {
			return errs.New(errs.Invalid, "invalid port %q: want for example 80, 53/udp or 8000-8010", p)
		}
		for n := from; n <= to; n++ {
			ports = append(ports, strconv.FormatUint(n, 10)+"/"+proto)
		}
	}
	c.ExposedPorts = union(c.ExposedPorts, ports)
	return nil
}

func union(a, b []string) []string {
	out := slices.Concat(a, b)
	slices.Sort(out)
	return slices.Compact(out)
}

func workdir(old, dir string) string {
	if strings.HasPrefix(dir, "/") {
		return dir
	}
	return strings.TrimSuffix(old, "/") + "/" + dir
}

func healthcheck(c *model.ImageConfig, s string) error {
	h := &model.Healthcheck{}
	for strings.HasPrefix(s, "--") {
		flag, rest, _ := strings.Cut(s, " ")
		s = strings.TrimSpace(rest)
		name, value, _ := strings.Cut(strings.TrimPrefix(flag, "--"), "=")
		if name == "retries" {
			n, err := strconv.Atoi(value)
			if err != nil || n < 0 {
				return errs.New(errs.Invalid, "--retries=%s: want a number", value)
			}
			h.Retries = n
			continue
		}
		d, err := time.ParseDuration(value)
		if err != nil || d < 0 {
			return errs.New(errs.Invalid, "--%s=%s: want a duration such as 30s", name, value)
		}
		switch name {
		case "interval":
			h.Interval = d
		case "timeout":
			h.Timeout = d
		case "start-period":
			h.StartPeriod = d
		case "start-interval":
			h.StartInterval = d
		default:
			return errs.New(errs.Invalid, "unknown flag --%s of HEALTHCHECK", name)
		}
	}
	kind, rest, _ := strings.Cut(s, " ")
	rest = strings.TrimSpace(rest)
	switch strings.ToUpper(kind) {
	case "NONE":
		h.Test = []string{"NONE"}
	case "CMD":
		if words, ok := jsonList(rest); ok {
			h.Test = append([]string{"CMD"}, words...)
		} else {
			h.Test = []string{"CMD-SHELL", rest}
		}
	default:
		return errs.New(errs.Invalid, "HEALTHCHECK wants NONE or CMD, not %q", kind)
	}
	c.Healthcheck = h
	return nil
}
