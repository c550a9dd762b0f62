package engine

import (
	"cmp"
	"slices"
	"strings"
	"sync"

	"github.com/shoalhq/shoal/lib/errs"
	"github.com/shoalhq/shoal/lib/ids"
	"github.com/shoalhq/shoal/model"
)

// index finds containers by ID, unique prefix and name. A name is reserved before its container is there.
type index struct {
	mu    sync.RWMutex
	byID  map[string]*entry
	names map[string]string // name → ID
}

func (x *index) init() { x.byID, x.names = map[string]*entry{}, map[string]string{} }

// reserve takes the name for the ID, or says who has it.
func (x *index) reserve(name, id string) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if other, taken := x.names[name]; taken && other != id {
		return errs.New(errs.Conflict, "Conflict. The container name \"/%s\" is already in use by container %q. "+
			"You have to remove (or rename) that container to be able to reuse that name.", name, other)
	}
	x.names[name] = id
	return nil
}

// release gives a name back.
func (x *index) release(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.names[name] == id {
		delete(x.names, name)
	}
}

// add makes the entry known under its name.
func (x *index) add(en *entry) error {
	if err := x.reserve(en.get().Name, en.id); err != nil {
		return err
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.byID[en.id] = en
	return nil
}

// drop forgets the entry and its name.
func (x *index) drop(en *entry) {
	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.byID, en.id)
	if name := en.get().Name; x.names[name] == en.id {
		delete(x.names, name)
	}
}

// all lists the entries in no order.
func (x *index) all() []*entry {
	x.mu.RLock()
	defer x.mu.RUnlock()
	out := make([]*entry, 0, len(x.byID))
	for _, en := range x.byID {
		out = append(out, en)
	}
	return out
}

// sorted lists the entries, newest first.
func (x *index) sorted() []*entry {
	out := x.all()
	slices.SortFunc(out, func(a, b *entry) int {
		ca, cb := a.get(), b.get()
		return cmp.Or(cb.Created.Compare(ca.Created), cmp.Compare(ca.ID, cb.ID))
	})
	return out
}

// find looks up a whole ID, then a name, then a unique prefix of an ID, as Docker does.
func (x *index) find(ref string) (*entry, error) {
	if ref == "" {
		return nil, errs.New(errs.Invalid, "no container name or ID given")
	}
	x.mu.RLock()
	defer x.mu.RUnlock()
	if en := x.byID[ref]; en != nil {
		return en, nil
	}
	if en := x.byID[x.names[strings.TrimPrefix(ref, "/")]]; en != nil {
		return en, nil
	}
	var found *entry
	if len(ref) < ids.Len && strings.Trim(ref, "0123456789abcdef") == "" {
		for id, en := range x.byID {
			if !strings.HasPrefix(id, ref) {
				continue
			}
			if found != nil {
				return nil, errs.New(errs.Invalid, "multiple IDs found with provided prefix: %s; give more digits", ref)
			}
			found = en
		}
	}
	if found == nil {
		return nil, errs.New(errs.NotFound, "No such container: %s", ref)
	}
	return found, nil
}

// find is the entry of a container that is not being removed... or any at all; callers check states.
func (e *Engine) find(ref string) (*entry, error) { return e.index.find(ref) }

// validName says why a name cannot be a container's.
func validName(name string) error {
	ok := len(name) > 1
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			ok = false
		}
	}
	if !ok {
		return errs.New(errs.Invalid, "Invalid container name (%s), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, at least two of them", name)
	}
	return nil
}

// Rename gives a container another name.
func (e *Engine) rename(en *entry, name string) (old string, err error) {
	name = strings.TrimPrefix(name, "/")
	if err := validName(name); err != nil {
		return "", err
	}
	old = en.get().Name
	if old == name {
		return "", errs.New(errs.Invalid, "Renaming a container with the same name as its current name")
	}
	if err := e.index.reserve(name, en.id); err != nil {
		return "", err
	}
	next := en.edit(func(c *model.Container) { c.Name = name })
	if err := e.records.SaveSpec(next, !next.Spec.Options.AutoRemove); err != nil {
		en.edit(func(c *model.Container) { c.Name = old })
		e.index.release(name, en.id)
		return "", err
	}
	e.index.release(old, en.id)
	e.followRename(old, name)
	return old, nil
}
