package node

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"

	"github.com/vishvananda/netlink"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/importdocker"
	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/model"
	"github.com/shoalhq/shoal/volume"
)

// importing lets one take-over run at a time: the second would find what the first is about to make.
var importing sync.Mutex

// serveImportDocker answers POST /shoal/import-docker, a types.ImportRequest, with a stream of types.ImportLine.
func (n *Node) serveImportDocker(w http.ResponseWriter, r *http.Request) error {
	var in types.ImportRequest
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, 1<<16))
	d.DisallowUnknownFields()
	if err := d.Decode(&in); err != nil {
		return errs.New(errs.Invalid, "invalid JSON: %w", err)
	}
	if !importing.TryLock() {
		return errs.New(errs.Conflict, "another take-over of a Docker is at work; wait for its end")
	}
	defer importing.Unlock()
	source, err := importdocker.Open(in.From, in.Containerd)
	if err != nil {
		return err
	}
	defer source.Close()
	w.Header().Set("Content-Type", "application/json")
	flusher := http.NewResponseController(w)
	out := json.NewEncoder(w)
	say := func(l types.ImportLine) {
		out.Encode(l) // a client that has gone ends the request's context
		flusher.Flush()
	}
	err = source.Run(r.Context(), importTarget{n}, importdocker.Options{DryRun: in.DryRun, Move: in.Move}, func(l importdocker.Line) {
		say(types.ImportLine{Kind: l.Kind, Name: l.Name, Result: l.Result, Detail: l.Detail})
	})
	if err != nil {
		say(types.ImportLine{Error: err.Error()})
		return nil
	}
	say(types.ImportLine{Done: true})
	return nil
}

// importTarget is importdocker.Target.
type importTarget struct{ n *Node }

// Has goes by whole names: Inspect and Resolve also take the beginning of an ID.
func (t importTarget) Has(ctx context.Context, kind, name string) (bool, error) {
	found, err := "", error(nil)
	switch kind {
	case importdocker.KindVolume:
		var v model.Volume
		v, err = t.n.volumes.Inspect(ctx, name)
		found = v.Name
	case importdocker.KindNetwork:
		var v model.Network
		v, err = t.n.networks.Resolve(ctx, name)
		found = v.Name
	default:
		var v model.ContainerView
		v, err = t.n.engine.Inspect(ctx, name, false)
		found = v.Name
	}
	if errs.Is(err, errs.NotFound) {
		return false, nil
	}
	return err == nil && found == name, err
}

func (t importTarget) Image(ctx context.Context, ref string) (string, error) {
	img, err := t.n.images.Store.Resolve(ctx, ref, "") // not the built-in ones: Docker's image of that name is wanted
	if errs.Is(err, errs.NotFound) || errs.Is(err, errs.Invalid) {
		return "", nil
	}
	return img.ID, err
}

func (t importTarget) Load(ctx context.Context, archive io.Reader) error {
	return t.n.images.Load(ctx, archive, nil, nil)
}

func (t importTarget) Tag(ctx context.Context, id, name string) error {
	return t.n.images.Tag(ctx, id, name)
}

func (t importTarget) TakeVolume(ctx context.Context, v importdocker.Volume, move bool) (string, error) {
	want := model.Volume{Name: v.Name, Driver: v.Driver, Labels: v.Labels, Options: v.Options, Anonymous: v.Anonymous}
	if v.Data == "" {
		_, err := t.n.volumes.Create(ctx, want)
		return "its content is where its options say", err
	}
	if !move {
		_, err := t.n.volumes.Take(ctx, want, v.Data)
		return "", err
	}
	moved, err := t.n.volumes.TakeOver(ctx, want, v.Data)
	if err == nil && !moved {
		return "copied: it is on another filesystem, and stays there, too", nil
	}
	return "moved", err
}

func (t importTarget) MakeNetwork(ctx context.Context, body []byte, bridge string) (note string, err error) {
	var b convert.NetworkCreateBody
	if err := json.Unmarshal(body, &b); err != nil {
		return "", errs.New(errs.Damaged, "its record is damaged: %w", err)
	}
	spec, err := convert.NetworkSpec(&b, types.MaxVersion)
	if err != nil {
		return "", err
	}
	removed, err := removeLeftBridge(bridge)
	if err != nil {
		return "", err
	}
	if removed {
		note = "the interface " + bridge + " that Docker had left was removed; Docker makes it again when it starts"
	}
	_, warning, err := apiNetworks{t.n.networks, t.n.engine, t.n.bus}.Create(ctx, spec)
	if warning != "" && note != "" {
		note += "; "
	}
	return note + warning, err
}

// removeLeftBridge removes the bridge that a stopped Docker left: its address would attract what is meant for the network
// with the same subnet. A bridge that anything is plugged into is not touched.
func removeLeftBridge(name string) (bool, error) {
	if name == "" {
		return false, nil
	}
	l, err := netlink.LinkByName(name)
	var none netlink.LinkNotFoundError
	if errors.As(err, &none) {
		return false, nil
	}
	if err != nil {
		return false, errs.Wrap(err, "look for the interface %s", name)
	}
	if l.Type() != "bridge" {
		return false, errs.New(errs.Conflict, "there is an interface %s that is no bridge; remove it or rename it", name)
	}
	all, err := netlink.LinkList()
	if err != nil {
		return false, errs.Wrap(err, "list the interfaces")
	}
	for _, port := range all {
		if port.Attrs().MasterIndex == l.Attrs().Index {
			return false, errs.New(errs.Conflict, "the interface %s of Docker is still there and %s is plugged into it; stop what uses it, then `ip link delete %s`", name, port.Attrs().Name, name)
		}
	}
	return true, errs.Wrap(netlink.LinkDel(l), "remove the interface %s that Docker left", name)
}

func (t importTarget) MakeContainer(ctx context.Context, name string, body []byte, changes string) ([]string, error) {
	var b convert.CreateBody
	if err := json.Unmarshal(body, &b); err != nil {
		return nil, errs.New(errs.Damaged, "its configuration: %w", err)
	}
	req, warnings, err := convert.FromCreate(&b, name, "", types.MaxVersion)
	if err != nil {
		return nil, err
	}
	res, err := t.n.engine.CreateWithChanges(ctx, req, func(upper string) error { return volume.CopyChanges(ctx, upper, changes) })
	return append(warnings, res.Warnings...), err
}
