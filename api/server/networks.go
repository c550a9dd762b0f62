package server

import (
	"net/http"

	"github.com/moby/moby/api/types/network"

	"github.com/shoalhq/shoal/api/convert"
	"github.com/shoalhq/shoal/api/types"
	"github.com/shoalhq/shoal/lib/errs"
)

func (s *Server) networkRoutes() {
	if s.b.Networks == nil {
		s.handle("/networks", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("networks") })
		s.handle("/networks/", func(http.ResponseWriter, *http.Request, types.Version) error { return missing("networks") })
		return
	}
	s.handle("GET /networks", s.networkList)
	s.handle("GET /networks/{$}", s.networkList)
	s.handle("POST /networks/create", s.networkCreate)
	s.handle("POST /networks/prune", s.networkPrune)
	s.handle("GET /networks/{id}", s.networkInspect)
	s.handle("DELETE /networks/{id}", s.networkRemove)
	s.handle("POST /networks/{id}/connect", s.networkConnect)
	s.handle("POST /networks/{id}/disconnect", s.networkDisconnect)
}

func (s *Server) networkList(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("dangling", "driver", "id", "label", "name", "scope", "type")
	if err != nil {
		return err
	}
	list, err := s.b.Networks.List(r.Context(), f)
	if err != nil {
		return err
	}
	out := make([]any, 0, len(list))
	for i := range list {
		if v < 28 { // lists told members too
			out = append(out, networkInspect(&list[i], v))
			continue
		}
		if v >= 52 {
			out = append(out, convert.Network(&list[i].Network))
			continue
		}
		out = append(out, network.Inspect{Network: convert.Network(&list[i].Network), Containers: map[string]network.EndpointResource{}})
	}
	return writeJSON(w, http.StatusOK, out)
}

func networkInspect(n *NetworkView, v types.Version) network.Inspect {
	out := network.Inspect{Network: convert.Network(&n.Network), Containers: map[string]network.EndpointResource{}}
	for id, m := range n.Endpoints {
		out.Containers[id] = convert.NetworkMember(&m.Endpoint, m.ContainerName)
	}
	if v >= 52 {
		out.Status = convert.NetworkStatus(n.Subnets)
	}
	return out
}

func (s *Server) networkInspect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	n, err := s.b.Networks.Inspect(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	if scope := q.Get("scope"); scope != "" && scope != convert.Network(&n.Network).Scope {
		return errs.New(errs.NotFound, "network %s not found with scope %s; it is %s", r.PathValue("id"), scope, convert.Network(&n.Network).Scope)
	}
	return writeJSON(w, http.StatusOK, networkInspect(&n, v))
}

func (s *Server) networkCreate(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body convert.NetworkCreateBody
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	spec, err := convert.NetworkSpec(&body, v)
	if err != nil {
		return err
	}
	id, warning, err := s.b.Networks.Create(s.detached(), spec)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusCreated, network.CreateResponse{ID: id, Warning: warning})
}

func (s *Server) networkRemove(w http.ResponseWriter, r *http.Request, v types.Version) error {
	if err := s.b.Networks.Remove(s.detached(), r.PathValue("id")); err != nil {
		return err
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

func (s *Server) networkPrune(w http.ResponseWriter, r *http.Request, v types.Version) error {
	q, err := parseQuery(r)
	if err != nil {
		return err
	}
	f, err := q.filters("label", "label!", "until")
	if err != nil {
		return err
	}
	deleted, err := s.b.Networks.Prune(s.detached(), f)
	if err != nil {
		return err
	}
	if deleted == nil {
		deleted = []string{}
	}
	s.pruned("network", 0)
	return writeJSON(w, http.StatusOK, map[string][]string{"NetworksDeleted": deleted})
}

func (s *Server) networkConnect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body network.ConnectRequest
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	if body.Container == "" {
		return errs.New(errs.Invalid, "connect to network %s: the container is missing; give Container", r.PathValue("id"))
	}
	if body.EndpointConfig != nil && v < 44 {
		body.EndpointConfig.MacAddress = nil
	}
	spec, err := convert.EndpointSpec(body.EndpointConfig)
	if err != nil {
		return err
	}
	return s.b.Networks.Connect(s.detached(), r.PathValue("id"), body.Container, spec)
}

func (s *Server) networkDisconnect(w http.ResponseWriter, r *http.Request, v types.Version) error {
	var body network.DisconnectRequest
	if err := decode(w, r, &body, false); err != nil {
		return err
	}
	if body.Container == "" {
		return errs.New(errs.Invalid, "disconnect from network %s: the container is missing; give Container", r.PathValue("id"))
	}
	return s.b.Networks.Disconnect(s.detached(), r.PathValue("id"), body.Container, body.Force)
}
