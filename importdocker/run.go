package importdocker

import (
	"cmp"
	"context"
	"io"
	"slices"
	"strings"

	"github.com/docker/go-units"
	"github.com/opencontainers/go-digest"

	"github.com/shoalhq/shoal/lib/errs"
)

// Target is the engine that takes things over. Each thing that it makes is there whole or not at all.
type Target interface {
	// Has says whether there is a volume, network or container of a name.
	Has(ctx context.Context, kind, name string) (bool, error)
	// Image gives the ID of what a name, an ID or a digest means here; "" when it means nothing.
	Image(ctx context.Context, ref string) (string, error)
	// Load reads an archive of one image.
	Load(ctx context.Context, archive io.Reader) error
	Tag(ctx context.Context, id, name string) error
	// TakeVolume makes a volume with a copy of its content, or with the content itself; it says how.
	TakeVolume(ctx context.Context, v Volume, move bool) (how string, err error)
	// MakeNetwork makes a network of the API's request. bridge is an interface that Docker may have left; it is in the way.
	MakeNetwork(ctx context.Context, body []byte, bridge string) (note string, err error)
	// MakeContainer makes a container of the API's request, with a copy of the changes in the directory.
	MakeContainer(ctx context.Context, name string, body []byte, changes string) (warnings []string, err error)
}

// What a line is about.
const (
	KindNetwork   = "network"
	KindVolume    = "volume"
	KindImage     = "image"
	KindContainer = "container"
)

// What became of it.
const (
	Imported = "imported"
	Present  = "present" // it was here before
	Planned  = "planned" // would be imported
	Skipped  = "skipped" // cannot be here, by its nature
	Failed   = "failed"
)

// Line tells what became of one thing.
type Line struct{ Kind, Name, Result, Detail string }

// Options of Run.
type Options struct {
	DryRun bool // only say what would be done
	Move   bool // the content of volumes is moved, not copied
}

// run is one take-over.
type run struct {
	*Source
	Target
	Options
	say  func(Line)
	sent map[digest.Digest]bool // blobs that the engine's store has from this run
}

// Run takes everything over that is not there yet, and says what became of each thing. What fails does not stop the rest;
// the error is for what stops everything.
func (s *Source) Run(ctx context.Context, t Target, o Options, say func(Line)) error {
	r := &run{s, t, o, say, map[digest.Digest]bool{}}
	containers, problems := s.containers()
	r.tell(problems)
	for _, step := range []func(context.Context, []*container) error{r.allNetworks, r.allVolumes, r.allImages, r.allContainers} {
		if err := step(ctx, containers); err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	return nil
}

func (r *run) tell(lines []Line) {
	for _, l := range lines {
		r.say(l)
	}
}

// each takes one thing over, unless it is there or nothing is to be done.
func (r *run) each(ctx context.Context, kind, name, refusal, plan string, do func() (string, error)) {
	if ctx.Err() != nil { // Run tells of it
		return
	}
	line := Line{Kind: kind, Name: name}
	there, err := r.Has(ctx, kind, name)
	switch {
	case err != nil:
		line.Result, line.Detail = Failed, err.Error()
	case there:
		line.Result = Present
	case refusal != "":
		line.Result, line.Detail = Skipped, refusal
	case r.DryRun:
		line.Result, line.Detail = Planned, plan
	default:
		line.Result = Imported
		line.Detail, err = do()
		line = outcome(line, err)
	}
	r.say(line)
}

// outcome is the line of something that was tried.
func outcome(l Line, err error) Line {
	if err != nil {
		l.Result, l.Detail = Failed, err.Error()
	}
	return l
}

func (r *run) allNetworks(ctx context.Context, _ []*container) error {
	list, problems, err := r.networks()
	if err != nil {
		return errs.Wrap(err, "read Docker's networks")
	}
	r.tell(problems)
	for _, n := range list {
		if n.predefined() {
			continue
		}
		r.each(ctx, KindNetwork, n.Name, n.refusal(), n.Type, func() (string, error) { return r.network(ctx, &n) })
	}
	return nil
}

// network makes a network with the subnets it had. One that Docker chose by itself may be taken here.
func (r *run) network(ctx context.Context, n *network) (string, error) {
	body, picked, err := n.body(true)
	if err != nil {
		return "", err
	}
	note, err := r.MakeNetwork(ctx, body, n.bridge)
	if err == nil || !picked {
		return note, err
	}
	why := err
	if body, _, err = n.body(false); err != nil {
		return "", err
	}
	more, err := r.MakeNetwork(ctx, body, n.bridge)
	if err != nil {
		return "", why
	}
	return strings.TrimPrefix(note+more+"; it has another subnet now, Docker's own choice could not be had: "+why.Error(), "; "), nil
}

func (r *run) allVolumes(ctx context.Context, _ []*container) error {
	list, err := r.volumes()
	if err != nil {
		return errs.Wrap(err, "read Docker's volumes")
	}
	for _, v := range list {
		take := func() (string, error) { return r.TakeVolume(ctx, v.wanted(), r.Move) }
		if r.Move && !r.DryRun && v.wanted().Data != "" && holds(v.data) {
			// A volume may be there without its content, when the engine ended between making one and moving the other.
			if there, err := r.Has(ctx, KindVolume, v.Name); there && err == nil {
				if how, err := take(); !errs.Is(err, errs.Conflict) {
					r.say(outcome(Line{Kind: KindVolume, Name: v.Name, Result: Imported, Detail: how}, err))
					continue
				}
			}
		}
		r.each(ctx, KindVolume, v.Name, "", v.Driver, take)
	}
	return nil
}

func (r *run) allImages(ctx context.Context, containers []*container) error {
	used := map[string]bool{}
	for _, c := range containers {
		used[c.Image] = true
	}
	list, problems := r.images(used)
	r.tell(problems)
	for _, img := range list {
		if ctx.Err() != nil {
			return nil
		}
		line, err := r.image(ctx, &img)
		line.Kind, line.Name = KindImage, cmp.Or(strings.Join(img.names, " "), img.id)
		r.say(outcome(line, err))
	}
	return nil
}

// image takes an image with its names over. A name that means another image here stays as it is.
func (r *run) image(ctx context.Context, img *image) (Line, error) {
	id, err := r.Image(ctx, img.id)
	if err != nil {
		return Line{}, err
	}
	line := Line{Result: Present}
	var missing []string
	for _, n := range img.names {
		there, err := r.Image(ctx, n)
		switch {
		case err != nil:
			return line, err
		case there == "":
			missing = append(missing, n)
		case id == "" || there != id:
			line.Detail += "; " + n + " is another image here and stays that"
		}
	}
	line.Detail = strings.TrimPrefix(line.Detail, "; ")
	if id != "" && len(missing) == 0 {
		return line, nil
	}
	if line.Result = Imported; r.DryRun {
		line.Result = Planned
		line.Detail = strings.Trim(units.HumanSize(float64(img.size))+"; "+line.Detail, "; ")
		return line, nil
	}
	if id == "" {
		return line, r.load(ctx, img, missing)
	}
	for _, n := range missing {
		if err := r.Tag(ctx, id, n); err != nil {
			return line, err
		}
	}
	return line, nil
}

// load sends an image's archive. What earlier images of this run brought is left out; should it be gone, everything is sent.
func (r *run) load(ctx context.Context, img *image, names []string) error {
	b, err := img.pack()
	if err != nil {
		return err
	}
	if err = r.send(ctx, b, names); err != nil && len(r.sent) > 0 && ctx.Err() == nil {
		clear(r.sent)
		err = r.send(ctx, b, names)
	}
	if err == nil {
		b.mark(r.sent)
	}
	return err
}

func (r *run) send(ctx context.Context, b *bundle, names []string) error {
	in, out := io.Pipe()
	wrote := make(chan error, 1)
	go func() {
		err := b.write(ctx, out, names, r.sent)
		out.CloseWithError(err)
		wrote <- err
	}()
	err := r.Load(ctx, in)
	in.CloseWithError(errs.New(errs.Canceled, "the load ended"))
	if werr := <-wrote; werr != nil && !errs.Is(werr, errs.Canceled) {
		return werr // why the archive was cut off
	}
	return err
}

func (r *run) allContainers(ctx context.Context, list []*container) error {
	names := map[string]string{}
	nets, _, err := r.networks()
	if err != nil {
		return err
	}
	for _, n := range nets {
		names[n.ID] = n.Name
	}
	for _, c := range list {
		names[c.ID] = c.Name
	}
	for _, c := range list {
		r.each(ctx, KindContainer, c.Name, c.refusal(), "", func() (string, error) { return r.container(ctx, c, names) })
	}
	return nil
}

func (r *run) container(ctx context.Context, c *container, names map[string]string) (string, error) {
	id, err := r.Image(ctx, c.Image)
	if err != nil {
		return "", err
	}
	if id == "" {
		return "", errs.New(errs.NotFound, "its image %s is not here", c.Image)
	}
	ref := strings.Trim(string(c.Config["Image"]), `"`)
	if named, err := r.Image(ctx, ref); err != nil || named != id {
		ref = id // the name means another image by now
	}
	changes, err := r.writable(c)
	if err != nil {
		return "", err
	}
	body, err := c.body(ref, names)
	if err != nil {
		return "", err
	}
	warnings, err := r.MakeContainer(ctx, c.Name, body, changes)
	return strings.Join(slices.Compact(warnings), "; "), err
}
