package convert

import (
	"net/netip"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/model"
)

var comparers = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
	cmp.Comparer(func(a, b network.Port) bool { return a == b }),
}

func newContainer(r model.CreateRequest) model.Container {
	return model.Container{Name: r.Name, Image: model.ContainerImage{Ref: r.Image}, Spec: r.Spec}
}
