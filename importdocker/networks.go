package importdocker

import (
	"bytes"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/bbolt"

	"github.com/shoalhq/shoal/lib/errs"
)

// view goes through a bucket of one of Docker's databases. A database that is not there is an empty one.
func (s *Source) view(file, name string, f func(key, value []byte) error) error {
	path := filepath.Join(s.dir, file)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(path, 0, &bbolt.Options{ReadOnly: true, Timeout: lockWait})
	if err != nil {
		return errs.New(errs.Damaged, "open %s: %w", path, err)
	}
	defer db.Close()
	return db.View(func(tx *bbolt.Tx) error {
		b := tx.Bucket([]byte(name))
		if b == nil {
			return nil
		}
		return b.ForEach(f)
	})
}

// network is one of Docker's networks.
type network struct {
	ID       string
	Name     string
	Type     string `json:"networkType"`
	Scope    string
	Internal bool
	Ingress  bool
	Config   bool `json:"configOnly"`

	Attachable bool
	Labels     map[string]string
	Generic    map[string]json.RawMessage
	ipam

	bridge string // the interface that Docker made for it, and leaves when it ends; "": none, or not Docker's
}

// ipam is how the addresses of a network are given. The lists are texts that hold JSON.
type ipam struct {
	IPv4    *bool             `json:"enableIPv4"`
	IPv6    bool              `json:"enableIPv6"`
	Driver  string            `json:"ipamType"`
	Options map[string]string `json:"ipamOptions"`
	V4      string            `json:"ipamV4Config"`
	V6      string            `json:"ipamV6Config"`
	V4Info  string            `json:"ipamV4Info"`
	V6Info  string            `json:"ipamV6Info"`
}

// ipRange is an element of V4 and V6.
type ipRange struct {
	PreferredPool, SubPool, Gateway string
	AuxAddresses                    map[string]string
}

const (
	networkPrefix = "docker/network/v1.0/network/"
	bridgePrefix  = "docker/network/v1.0/bridge/"
)

// madeByDocker is the bridge driver's mark of an interface that it made itself; others belong to the machine's owner.
const madeByDocker = 1

// networks lists the networks that people made.
func (s *Source) networks() (list []network, problems []Line, err error) {
	made := map[string]string{} // interfaces by network
	err = s.view("network/files/local-kv.db", "libnetwork", func(key, value []byte) error {
		var b struct {
			ID, BridgeName     string
			BridgeIfaceCreator int
		}
		if bytes.HasPrefix(key, []byte(bridgePrefix)) && len(value) > 8 && json.Unmarshal(value[8:], &b) == nil && b.BridgeIfaceCreator == madeByDocker {
			made[b.ID] = b.BridgeName
		}
		id, ok := strings.CutPrefix(string(key), networkPrefix)
		if !ok || len(value) < 8 || !bytes.HasPrefix(value[8:], []byte("{")) { // a counter comes first
			return nil
		}
		var n network
		if err := json.Unmarshal(value[8:], &n); err != nil {
			problems = append(problems, Line{Kind: KindNetwork, Name: strings.Trim(id, "/"), Result: Failed, Detail: "its record is damaged: " + err.Error()})
			return nil
		}
		list = append(list, n)
		return nil
	})
	for i := range list {
		list[i].bridge = made[list[i].ID]
	}
	slices.SortFunc(list, func(a, b network) int { return strings.Compare(a.Name, b.Name) })
	return list, problems, err
}

// predefined says whether every engine has this network.
func (n *network) predefined() bool {
	return n.Name == "bridge" || n.Name == "host" || n.Name == "none"
}

// refusal is why a network cannot be taken over; "" when it can.
func (n *network) refusal() string {
	switch {
	case n.Scope == "swarm" || n.Ingress || n.Type == "overlay":
		return "it belongs to a swarm"
	case n.Config:
		return "networks that hold configuration only are not supported"
	}
	return ""
}

func (n *network) options() map[string]string {
	all := map[string]any{}
	json.Unmarshal(n.Generic["com.docker.network.generic"], &all) // values are texts; damaged options are none
	out := map[string]string{}
	for k, v := range all {
		if text, ok := v.(string); ok {
			out[k] = text
		}
	}
	return out
}

// body is the request that makes the network. With chosen the subnets are also asked for that Docker chose by itself.
func (n *network) body(chosen bool) (data []byte, picked bool, err error) {
	b := map[string]any{"Name": n.Name, "Driver": n.Type, "Internal": n.Internal, "Attachable": n.Attachable, "EnableIPv6": n.IPv6,
		"Options": n.options(), "Labels": n.Labels}
	if n.IPv4 != nil {
		b["EnableIPv4"] = *n.IPv4
	}
	var config []map[string]any
	for _, family := range []struct{ config, info string }{{n.V4, n.V4Info}, {n.V6, n.V6Info}} {
		list, mine, err := ranges(family.config, family.info, chosen)
		if err != nil {
			return nil, false, errs.New(errs.Damaged, "its record is damaged: %w", err)
		}
		config, picked = append(config, list...), picked || mine
	}
	b["IPAM"] = map[string]any{"Driver": n.ipam.Driver, "Options": n.ipam.Options, "Config": config}
	data, err = json.Marshal(b)
	return data, picked, err
}

// ranges makes the ranges of one address family; picked says that one is Docker's own choice.
func ranges(config, info string, chosen bool) (out []map[string]any, picked bool, err error) {
	var list []ipRange
	var infos []struct{ IPAMData string }
	if config != "" {
		err = json.Unmarshal([]byte(config), &list)
	}
	if info != "" && err == nil {
		err = json.Unmarshal([]byte(info), &infos)
	}
	if err != nil {
		return nil, false, err
	}
	for i, r := range list {
		m := map[string]any{}
		set := func(key, value string) {
			if value != "" {
				m[key] = value
			}
		}
		if r.PreferredPool == "" && chosen && i < len(infos) {
			var data struct{ Pool string }
			if json.Unmarshal([]byte(infos[i].IPAMData), &data) == nil {
				r.PreferredPool, picked = data.Pool, picked || data.Pool != ""
			}
		}
		if r.PreferredPool == "" {
			continue
		}
		set("Subnet", r.PreferredPool)
		set("IPRange", r.SubPool)
		set("Gateway", r.Gateway)
		if len(r.AuxAddresses) > 0 {
			m["AuxiliaryAddresses"] = r.AuxAddresses
		}
		out = append(out, m)
	}
	return out, picked, nil
}
