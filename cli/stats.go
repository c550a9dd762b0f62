package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/moby/moby/api/types/events"
	moby "github.com/moby/moby/client"
	"github.com/spf13/cobra"

	"github.com/shoalhq/shoal/api/client"
	"github.com/shoalhq/shoal/cli/format"
)

type statsFlags struct {
	all, noStream, noTrunc bool
	format                 string
}

func statsCommand(a *App) *cobra.Command {
	var s statsFlags
	cmd := a.command("stats [OPTIONS] [CONTAINER...]", count(0, -1), func(ctx context.Context, api *client.Client, args []string) error {
		return s.run(ctx, a, args)
	})
	fs := cmd.Flags()
	fs.BoolVarP(&s.all, "all", "a", false, "Show all containers (default shows just running)")
	fs.BoolVar(&s.noStream, "no-stream", false, "Disable streaming stats and only pull the first result")
	fs.BoolVar(&s.noTrunc, "no-trunc", false, "Do not truncate output")
	fs.StringVar(&s.format, "format", "", formatHelp)
	return cmd
}

func (s *statsFlags) run(ctx context.Context, a *App, names []string) error {
	ctx, cancel := interruptible(ctx)
	defer cancel()
	board := newStatsBoard(ctx, a.client.Client, !s.noStream)
	explicit := len(names) > 0
	if !explicit {
		res, err := a.client.ContainerList(ctx, moby.ContainerListOptions{All: s.all})
		if err != nil {
			return err
		}
		for _, c := range res.Items {
			board.add(c.ID)
		}
		if !s.noStream {
			go board.follow(s.all)
		}
	}
	for _, n := range names {
		board.add(n)
	}
	f := a.format(s.format, "statsFormat", false)
	if s.noStream {
		board.wait()
		return s.show(a, f, board, explicit)
	}
	board.waitFirst()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	if t := terminalOf(a.Out); t != nil {
		fmt.Fprint(a.Out, "\x1b[?25l")
		defer fmt.Fprint(a.Out, "\x1b[?25h")
	}
	for {
		if err := s.show(a, f, board, explicit); err != nil {
			return err
		}
		if explicit && board.empty() {
			return nil
		}
		select {
		case <-tick.C:
		case err := <-board.lost:
			return err
		case <-ctx.Done():
			return nil
		}
	}
}

// show draws the table, over the one before on a terminal.
func (s *statsFlags) show(a *App, f string, board *statsBoard, explicit bool) error {
	rows := board.rows(!s.noTrunc)
	var b bytes.Buffer
	if err := statsList.Write(&b, f, rows); err != nil {
		return err
	}
	if explicit {
		if err := board.firstError(); err != nil {
			return err
		}
	}
	if s.noStream || terminalOf(a.Out) == nil {
		_, err := a.Out.Write(b.Bytes())
		return err
	}
	var screen strings.Builder
	screen.WriteString("\x1b[H")
	for line := range strings.Lines(b.String()) {
		screen.WriteString("\x1b[K" + line)
	}
	screen.WriteString("\x1b[J")
	_, err := fmt.Fprint(a.Out, screen.String())
	return err
}

// follow adds containers as they start and takes them away as they go.
func (b *statsBoard) follow(all bool) {
	f := moby.Filters{}.Add("type", string(events.ContainerEventType))
	f.Add("event", "create", "start", "die", "destroy")
	res := b.api.Events(b.ctx, moby.EventsListOptions{Filters: f})
	for {
		select {
		case m := <-res.Messages:
			switch m.Action {
			case events.ActionCreate:
				if all {
					b.add(m.Actor.ID)
				}
			case events.ActionStart:
				b.remove(m.Actor.ID)
				b.add(m.Actor.ID)
			case events.ActionDie:
				if !all {
					b.remove(m.Actor.ID)
				}
			case events.ActionDestroy:
				b.remove(m.Actor.ID)
			}
		case err := <-res.Err:
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF // events have no end but the engine's
			}
			b.lost <- err
			return
		}
	}
}

var statsList = format.List[statsRow]{
	Columns: []format.Column[statsRow]{
		{Name: "Container", Header: "CONTAINER", Get: func(r statsRow) any { return r.Container }},
		{Name: "ID", Header: "CONTAINER ID", Get: func(r statsRow) any { return r.shownID() }},
		{Name: "Name", Header: "NAME", Get: func(r statsRow) any { return r.name() }},
		{Name: "CPUPerc", Header: "CPU %", Get: func(r statsRow) any { return r.percent(r.CPU) }},
		{Name: "MemUsage", Header: "MEM USAGE / LIMIT", Get: func(r statsRow) any { return r.memory() }},
		{Name: "MemPerc", Header: "MEM %", Get: func(r statsRow) any { return r.percent(r.MemPercent) }},
		{Name: "NetIO", Header: "NET I/O", Get: func(r statsRow) any { return r.pair(r.NetIn, r.NetOut) }},
		{Name: "BlockIO", Header: "BLOCK I/O", Get: func(r statsRow) any { return r.pair(r.BlockIn, r.BlockOut) }},
		{Name: "PIDs", Header: "PIDS", Get: func(r statsRow) any { return r.pids() }},
	},
	Table: []string{"ID", "Name", "CPUPerc", "MemUsage", "MemPerc", "NetIO", "BlockIO", "PIDs"},
}
