package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/docker/cli/opts"
	"github.com/moby/moby/api/types/events"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

// timeLayout is RFC 3339 with nanoseconds at a fixed width, so that columns line up and sort.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

func eventsCommand(a *App) *cobra.Command {
	var f string
	var o moby.EventsListOptions
	filter := opts.NewFilterOpt()
	cmd := a.command("events [OPTIONS]", count(0, 0), func(ctx context.Context, api *client.Client, _ []string) error {
		show := a.showEvent
		if f != "" {
			text := f
			if text == "json" {
				text = "{{json .}}"
			}
			t, err := format.Parse(text)
			if err != nil {
				return exit{code: 64, err: err} // EX_USAGE, as Docker's
			}
			show = func(m events.Message) error { return a.eventByTemplate(t, m) }
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		o.Filters = filter.Value()
		res := api.Events(ctx, o)
		for {
			select {
			case m := <-res.Messages:
				if err := show(m); err != nil {
					return err
				}
			case err := <-res.Err:
				// What had come before the end is still to be shown.
				for {
					select {
					case m := <-res.Messages:
						if err := show(m); err != nil {
							return err
						}
						continue
					default:
					}
					break
				}
				if err != nil && err.Error() != "EOF" {
					return err
				}
				return nil
			}
		}
	})
	fs := cmd.Flags()
	fs.VarP(&filter, "filter", "f", "Filter output based on conditions provided")
	fs.StringVar(&f, "format", "", valueFormatHelp)
	fs.StringVar(&o.Since, "since", "", "Show all events created since timestamp")
	fs.StringVar(&o.Until, "until", "", "Stream events until this timestamp")
	return cmd
}

func (a *App) eventByTemplate(t *template.Template, m events.Message) error {
	var b strings.Builder
	if err := t.Execute(&b, m); err != nil {
		return badFlag("--format: %w", err)
	}
	_, err := fmt.Fprintln(a.Out, b.String())
	return err
}

func (a *App) showEvent(m events.Message) error {
	var b strings.Builder
	switch {
	case m.TimeNano != 0:
		b.WriteString(time.Unix(0, m.TimeNano).Format(timeLayout) + " ")
	case m.Time != 0:
		b.WriteString(time.Unix(m.Time, 0).Format(timeLayout) + " ")
	}
	fmt.Fprintf(&b, "%s %s %s", m.Type, m.Action, m.Actor.ID)
	if len(m.Actor.Attributes) > 0 {
		attrs := make([]string, 0, len(m.Actor.Attributes))
		for _, k := range slices.Sorted(maps.Keys(m.Actor.Attributes)) {
			attrs = append(attrs, k+"="+m.Actor.Attributes[k])
		}
		b.WriteString(" (" + strings.Join(attrs, ", ") + ")")
	}
	_, err := fmt.Fprintln(a.Out, format.Plain(b.String()))
	return err
}
