package config

import (
	"fmt"
	"strings"
)

// Markdown is docs/daemon-options.md: every option and what becomes of it.
func Markdown() string {
	var b strings.Builder
	b.WriteString(`# The daemon's options

Every flag of ` + "`shoald` and every key of `daemon.json`" + ` (` + "`/etc/shoal/daemon.json`, or `--config-file`" + `). All that dockerd 20.10 to 29
knows is here: it works, or has no effect and is warned about, or is refused with the reason because ignoring it would be unsafe.
Unknown keys and flags are refused. What is said on the command line and in the file is refused, except for lists, which are joined.
This page is written from ` + "`node/config`: `go test ./node/config -rewrite`" + `.

`)
	for _, part := range []struct {
		title string
		in    func(o *option) bool
	}{
		{"Docker's that work", func(o *option) bool { return !o.ours && o.set != nil }},
		{"Shoal's own", func(o *option) bool { return o.ours }},
		{"Without effect", func(o *option) bool { return o.set == nil && o.refused == "" }},
		{"Refused", func(o *option) bool { return o.refused != "" }},
	} {
		fmt.Fprintf(&b, "## %s\n\n| flag | key | |\n|---|---|---|\n", part.title)
		for i := range options {
			if o := &options[i]; part.in(o) {
				fmt.Fprintf(&b, "| %s | %s | %s |\n", o.flagText(), o.keyText(), o.about())
			}
		}
		b.WriteString("\n")
	}
	b.WriteString("`SIGHUP` reads the file again. At once: " + Reloadable + ". All else needs a restart, which containers do not notice.\n")
	return b.String()
}

// Reloadable is what a daemon takes over from its file while it runs.
const Reloadable = "log-level, labels, authorization plug-ins, defaults of containers, runtimes, registries and mirrors, dns, " +
	"shutdown-timeout"

func (o *option) flagText() string {
	if o.flag == "" {
		return ""
	}
	t := "`--" + o.flag + "`"
	if o.short != "" {
		t += ", `-" + o.short + "`"
	}
	return t
}

func (o *option) keyText() string {
	if o.key == "" {
		return ""
	}
	t := "`" + o.key + "`"
	if o.oldKey != "" {
		t += " (`" + o.oldKey + "`)"
	}
	return t
}

// about is what the page says: for a refused option the reason.
func (o *option) about() string {
	if o.refused != "" {
		return strings.ReplaceAll(o.help+". Refused: "+o.refused, "|", `\|`)
	}
	return strings.ReplaceAll(o.help, "|", `\|`)
}
