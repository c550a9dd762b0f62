// Package netplugin is a network and IPAM plug-in of Docker's protocol for tests. Its networks are bridges, its endpoints
// pairs of virtual links, made where the test says; its addresses are counted up. A test can let any call hang or be
// refused, and asks in the end what is left. It must know nothing of Shoal.
package netplugin

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"sync"

	"github.com/vishvananda/netlink"
)

// Plugin is one that serves. Its fields may be changed under Lock.
type Plugin struct {
	sync.Mutex
	Moods
	Calls []string // methods, in order

	Networks  map[string]bool
	Endpoints map[string]bool
	Joined    map[string]bool
	Published map[string]int // endpoint → ports asked for
	Pools     map[string]netip.Prefix
	Taken     map[netip.Addr]bool

	lives int
	inNet func(func())
	stop  *http.Server
}

// Moods are in what way it is difficult.
type Moods struct {
	Hang   map[string]bool   // methods that do not answer while the caller waits
	Refuse map[string]string // method → what it says
	Die    map[string]bool   // methods upon which it ends
	Replay bool              // it says that it forgets pools and addresses when it ends; Forget does so
}

// Serve listens at DIR/NAME.sock. inNet runs a function in the network namespace of the "host".
func Serve(dir, name string, inNet func(func())) (*Plugin, error) {
	p := &Plugin{Moods: Moods{Hang: map[string]bool{}, Refuse: map[string]string{}, Die: map[string]bool{}}, Networks: map[string]bool{}, Endpoints: map[string]bool{},
		Joined: map[string]bool{}, Published: map[string]int{}, Pools: map[string]netip.Prefix{}, Taken: map[netip.Addr]bool{}, inNet: inNet}
	return p, p.Start(dir, name)
}

// Start serves (again).
func (p *Plugin) Start(dir, name string) error {
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		return err
	}
	p.stop = &http.Server{Handler: p}
	go p.stop.Serve(l)
	return nil
}

// Stop ends like a process that dies: connections break, what it knows stays for the next Start.
func (p *Plugin) Stop() { p.stop.Close() }

// Forget is what a plug-in does that keeps pools and addresses in memory only, when it ends. Pools get other IDs afterwards.
func (p *Plugin) Forget() {
	p.Lock()
	defer p.Unlock()
	p.Pools, p.Taken = map[string]netip.Prefix{}, map[netip.Addr]bool{}
	p.lives++
}

// Left says what it still knows of, but for networks and pools.
func (p *Plugin) Left() string {
	p.Lock()
	defer p.Unlock()
	if len(p.Endpoints)+len(p.Joined) == 0 && len(p.Taken) <= len(p.Pools) { // each pool has a gateway
		return ""
	}
	return fmt.Sprintf("endpoints %v, joined %v, addresses %v", p.Endpoints, p.Joined, p.Taken)
}

type request struct {
	NetworkID, EndpointID, PoolID, Pool, Address string
	V6                                           bool
	Interface                                    struct{ Address, AddressIPv6, MacAddress string }
	IPv4Data                                     []struct{ Gateway string }
	Options                                      map[string]json.RawMessage
}

type object = map[string]any

func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	method := r.URL.Path[1:]
	var in request
	json.Unmarshal(body, &in)
	p.Lock()
	p.Calls = append(p.Calls, method)
	hang, refuse, die := p.Hang[method], p.Refuse[method], p.Die[method]
	p.Unlock()
	if die {
		p.Stop()
		return
	}
	if hang {
		<-r.Context().Done()
		return
	}
	if refuse != "" {
		json.NewEncoder(w).Encode(object{"Err": refuse})
		return
	}
	out, known, err := p.answer(method, in)
	if !known {
		http.NotFound(w, r)
		return
	}
	if err != nil {
		out = object{"Err": err.Error()}
	}
	json.NewEncoder(w).Encode(out)
}

func (p *Plugin) answer(method string, in request) (out object, known bool, err error) {
	p.Lock()
	defer p.Unlock()
	out = object{}
	switch method {
	case "Plugin.Activate":
		out = object{"Implements": []string{"NetworkDriver", "IpamDriver"}}
	case "NetworkDriver.GetCapabilities":
		out = object{"Scope": "local"}
	case "NetworkDriver.CreateNetwork":
		p.Networks[in.NetworkID] = true
		p.inNet(func() { err = makeBridge("tb"+in.NetworkID[:8], in.IPv4Data[0].Gateway) })
	case "NetworkDriver.DeleteNetwork":
		delete(p.Networks, in.NetworkID)
		p.inNet(func() { remove("tb" + in.NetworkID[:8]) })
	case "NetworkDriver.CreateEndpoint":
		p.Endpoints[in.EndpointID] = true
		p.Published[in.EndpointID] = countPorts(in.Options)
		p.inNet(func() { err = makePair("tb"+in.NetworkID[:8], in.EndpointID) })
		if in.Interface.MacAddress == "" {
			out = object{"Interface": object{"MacAddress": "02:00:5e:" + in.EndpointID[:2] + ":" + in.EndpointID[2:4] + ":01"}}
		}
	case "NetworkDriver.DeleteEndpoint":
		delete(p.Endpoints, in.EndpointID)
		p.inNet(func() { remove("th" + in.EndpointID[:8]) })
	case "NetworkDriver.Join":
		p.Joined[in.EndpointID] = true
		var gw string
		p.inNet(func() { gw, err = gatewayOf("tb" + in.NetworkID[:8]) })
		out = object{"InterfaceName": object{"SrcName": "tc" + in.EndpointID[:8], "DstPrefix": "plug"}, "Gateway": gw,
			"StaticRoutes": []object{{"Destination": "203.0.113.0/24", "RouteType": 1}}}
	case "NetworkDriver.Leave":
		delete(p.Joined, in.EndpointID)
	case "NetworkDriver.ProgramExternalConnectivity", "NetworkDriver.RevokeExternalConnectivity":
	default:
		return p.ipam(method, in)
	}
	return out, true, err
}

func (p *Plugin) ipam(method string, in request) (out object, known bool, err error) {
	out = object{}
	switch method {
	case "IpamDriver.GetCapabilities":
		out = object{"RequiresRequestReplay": p.Replay}
	case "IpamDriver.GetDefaultAddressSpaces":
		out = object{"LocalDefaultAddressSpace": "here", "GlobalDefaultAddressSpace": "there"}
	case "IpamDriver.RequestPool":
		if in.Pool == "" {
			in.Pool = fmt.Sprintf("10.9%d.0.0/24", len(p.Pools))
		}
		id := fmt.Sprintf("pool %s.%d", in.Pool, p.lives)
		if p.Pools[id], err = netip.ParsePrefix(in.Pool); err == nil {
			out = object{"PoolID": id, "Pool": in.Pool}
		}
	case "IpamDriver.ReleasePool":
		delete(p.Pools, in.PoolID)
	case "IpamDriver.RequestAddress":
		pool := p.Pools[in.PoolID]
		a, perr := netip.ParseAddr(in.Address)
		for a = pool.Addr().Next(); perr != nil && p.Taken[a]; a = a.Next() {
		}
		if perr == nil {
			a, _ = netip.ParseAddr(in.Address)
		}
		if p.Taken[a] || !pool.Contains(a) {
			return out, true, fmt.Errorf("%s cannot be had", a)
		}
		p.Taken[a] = true
		out = object{"Address": netip.PrefixFrom(a, pool.Bits()).String()}
	case "IpamDriver.ReleaseAddress":
		a, _ := netip.ParseAddr(in.Address)
		delete(p.Taken, a)
	default:
		return nil, false, nil
	}
	return out, true, err
}

func countPorts(opts map[string]json.RawMessage) int {
	var maps []any
	json.Unmarshal(opts["com.docker.network.portmap"], &maps)
	return len(maps)
}

func makeBridge(name, gateway string) error {
	a, err := netlink.ParseAddr(gateway)
	if err != nil {
		return err
	}
	b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, TxQLen: -1}}
	if err := netlink.LinkAdd(b); err != nil {
		return err
	}
	if err := netlink.AddrAdd(b, a); err != nil {
		return err
	}
	return netlink.LinkSetUp(b)
}

func makePair(bridge, endpoint string) error {
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	v := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "th" + endpoint[:8], MasterIndex: b.Attrs().Index}, PeerName: "tc" + endpoint[:8]}
	if err := netlink.LinkAdd(v); err != nil {
		return err
	}
	return netlink.LinkSetUp(v)
}

func gatewayOf(bridge string) (string, error) {
	b, err := netlink.LinkByName(bridge)
	if err != nil {
		return "", err
	}
	as, err := netlink.AddrList(b, netlink.FAMILY_V4)
	if err != nil || len(as) == 0 {
		return "", fmt.Errorf("%s has no address: %v", bridge, err)
	}
	return as[0].IP.String(), nil
}

func remove(name string) {
	if l, err := netlink.LinkByName(name); err == nil {
		netlink.LinkDel(l)
	}
}
