package access

import (
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
)

// Scope is what the users of one scoped socket may do and see.
type Scope struct {
	Name   string
	Verbs  []Verb
	Labels []string // "name" or "name=value": objects must have all; none: everything is seen
}

var scopeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,62}$`)

// taken are keys that events use for facts of their own: a label of that name could not be told from them.
var taken = []string{"image", "name", "container", "exitCode", "signal", "execID", "execDuration", "oldName", "comment", "imageID", "imageRef",
	"height", "width", "destination", "driver", "propagation", "read/write", "type", "reclaimed"}

// Validate checks a scope that somebody wants to have made, and puts its verbs in order.
func (s *Scope) Validate() error {
	if !scopeName.MatchString(s.Name) {
		return errs.New(errs.Invalid, "socket name %q: want a letter or digit, then up to 62 letters, digits, dots, dashes and underscores", s.Name)
	}
	if len(s.Verbs) == 0 {
		return errs.New(errs.Invalid, "socket %s: no verb is given, so it would be good for nothing; name some of %s, or read-only", s.Name, strings.Join(Known(), ", "))
	}
	for _, v := range s.Verbs {
		if !slices.Contains(Known(), string(v)) {
			return errs.New(errs.Invalid, "socket %s: the verb %q cannot be given; those that can are %s (what creates, runs or copies would make its user root on this machine)",
				s.Name, v, strings.Join(Known(), ", "))
		}
	}
	for _, l := range s.Labels {
		key, _, _ := strings.Cut(l, "=")
		if key == "" {
			return errs.New(errs.Invalid, "socket %s: the label %q has no name; write name or name=value", s.Name, l)
		}
		if slices.Contains(taken, key) {
			return errs.New(errs.Invalid, "socket %s: the label %q cannot be told from what events say themselves; use another name such as com.example.%s", s.Name, l, key)
		}
	}
	slices.Sort(s.Verbs)
	s.Verbs = slices.Compact(s.Verbs)
	return nil
}

// Known lists the verbs that can be given.
func Known() (names []string) {
	for _, v := range slices.Concat(Looking, Changing) {
		names = append(names, string(v))
	}
	return names
}

// Permits says whether the scope has the rule's verb; the error says what it has.
func (s *Scope) Permits(r Rule, method, path string) error {
	if r.Verb == Open || slices.Contains(s.Verbs, r.Verb) {
		return nil
	}
	have := make([]string, len(s.Verbs))
	for i, v := range s.Verbs {
		have[i] = string(v)
	}
	if r.Verb == Engine {
		return errs.New(errs.Forbidden, "%s %s needs the full API; the socket %q permits only %s", method, path, s.Name, strings.Join(have, ", "))
	}
	return errs.New(errs.Forbidden, "%s %s needs the verb %q; the socket %q permits only %s", method, path, r.Verb, s.Name, strings.Join(have, ", "))
}

// Sees says whether an object with the labels may be seen.
func (s *Scope) Sees(labels map[string]string) bool {
	for _, l := range s.Labels {
		key, value, hasValue := strings.Cut(l, "=")
		got, there := labels[key]
		if !there || hasValue && got != value {
			return false
		}
	}
	return true
}

// Unseen is the answer about an object that is not there for this socket, whether it exists or not.
func (s *Scope) Unseen(kind, ref string) error {
	if len(s.Labels) == 0 {
		return errs.New(errs.NotFound, "No such %s: %s", kind, ref)
	}
	return errs.New(errs.NotFound, "No such %s: %s (the socket %q shows only what has the label %s)", kind, ref, s.Name, strings.Join(s.Labels, " and "))
}

// Narrow adds the scope's labels to a list's filters.
func (s *Scope) Narrow(f model.Filters) model.Filters {
	if len(s.Labels) == 0 {
		return f
	}
	out := maps.Clone(f)
	if out == nil {
		out = model.Filters{}
	}
	out["label"] = slices.Concat(out["label"], s.Labels)
	return out
}

// Event gives the event as the socket's users see it; false: not at all. Only containers' events are shown: what happens
// to other objects is known by labels that the event does not have.
func (s *Scope) Event(e model.Event) (model.Event, bool) {
	if e.Type != "container" || e.ID == "" || !s.Sees(e.Attrs) {
		return e, false
	}
	if strings.HasPrefix(e.Action, "exec_") {
		e.Action, _, _ = strings.Cut(e.Action, ":") // its command
	}
	return e, true
}

const hidden = "(hidden)"

// Container takes out what may be secret: environment, values of log and volume options.
func Container(v *model.ContainerView) {
	v.Spec.Process.Env = nil
	v.Spec.Log.Options = hide(v.Spec.Log.Options)
	v.Spec.Storage.Mounts = slices.Clone(v.Spec.Storage.Mounts)
	for i := range v.Spec.Storage.Mounts {
		v.Spec.Storage.Mounts[i] = hideMount(v.Spec.Storage.Mounts[i])
	}
	v.Mounts = slices.Clone(v.Mounts)
	for i := range v.Mounts {
		if m := v.Mounts[i].Spec; m != nil {
			m := hideMount(*m)
			v.Mounts[i].Spec = &m
		}
	}
}

func hideMount(m model.Mount) model.Mount {
	if m.Volume != nil && len(m.Volume.DriverOptions) > 0 {
		o := *m.Volume
		o.DriverOptions = hide(o.DriverOptions)
		m.Volume = &o
	}
	return m
}

// hide keeps the names and hides the values.
func hide(m map[string]string) map[string]string {
	if m == nil {
		return nil
	}
	out := make(map[string]string, len(m))
	for k := range m {
		out[k] = hidden
	}
	return out
}

// Image takes the environment and the history out of an image.
func Image(i *model.Image) {
	i.Config.Env = nil
	i.History = nil
}

// Volume takes the values of the driver's options out: passwords of network file systems are there.
func Volume(v *model.Volume) { v.Options = hide(v.Options) }

// Network takes the values of the driver's options out.
func Network(n *model.Network) { n.Options = hide(n.Options) }
