package model

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/shoalhq/shoal/lib/errs"
)

// Names of the networks that every host has, and of the drivers.
const (
	NetworkBridge = "bridge"
	NetworkHost   = "host"
	NetworkNone   = "none"

	DriverBridge  = "bridge"
	DriverHost    = "host"
	DriverNull    = "null" // Docker's name for the driver of the network "none"
	DriverMacvlan = "macvlan"
	DriverIPvlan  = "ipvlan"
	DriverOverlay = "overlay"

	ScopeLocal  = "local"
	ScopeSwarm  = "swarm"
	ScopeGlobal = "global"
)

// Network options and endpoint options that people know from Docker's bridge driver. Unknown keys are kept, and an
// option that the driver knows but cannot honour is refused when the network is made.
const (
	OptBridgeName         = "com.docker.network.bridge.name"
	OptBridgeICC          = "com.docker.network.bridge.enable_icc"
	OptBridgeMasquerade   = "com.docker.network.bridge.enable_ip_masquerade"
	OptBridgeHostIPv4     = "com.docker.network.bridge.host_binding_ipv4"
	OptBridgeDefault      = "com.docker.network.bridge.default_bridge"
	OptBridgeGatewayMode4 = "com.docker.network.bridge.gateway_mode_ipv4"
	OptBridgeGatewayMode6 = "com.docker.network.bridge.gateway_mode_ipv6"
	OptBridgeInhibit4     = "com.docker.network.bridge.inhibit_ipv4" // the bridge gets no IPv4 address: the gateway is another machine
	OptBridgeTrusted      = "com.docker.network.bridge.trusted_host_interfaces"
	OptHostIPv4           = "com.docker.network.host_ipv4" // source address of what leaves the host, instead of masquerading
	OptHostIPv6           = "com.docker.network.host_ipv6"
	OptMTU                = "com.docker.network.driver.mtu"
	OptIfacePrefix        = "com.docker.network.container_iface_prefix"
	OptEndpointSysctls    = "com.docker.network.endpoint.sysctls"
	OptEndpointIfname     = "com.docker.network.endpoint.ifname"
	OptParent             = "parent"       // macvlan, ipvlan: the host's interface, or interface.VLAN
	OptMacvlanMode        = "macvlan_mode" // bridge, private, vepa, passthru
	OptIPvlanMode         = "ipvlan_mode"  // l2, l3, l3s
	OptIPvlanFlag         = "ipvlan_flag"  // bridge, private, vepa
)

// IPPool is one range of addresses of a network.
type IPPool struct {
	Subnet       netip.Prefix          `json:"subnet"`
	Range        netip.Prefix          `json:"range,omitzero"`   // part of Subnet from which addresses are chosen
	Gateway      netip.Addr            `json:"gateway,omitzero"` // zero: the first address of the subnet
	AuxAddresses map[string]netip.Addr `json:"auxAddresses,omitempty"`
	Handle       string                `json:"handle,omitempty"` // what an IPAM plug-in calls it
}

// IPAM says where a network's addresses come from.
type IPAM struct {
	Driver  string            `json:"driver,omitempty"` // "default", "null", or a plug-in's name
	Options map[string]string `json:"options,omitempty"`
	Pools   []IPPool          `json:"pools,omitempty"`
}

// NetworkSpec is what a user asks of a network.
type NetworkSpec struct {
	Name       string            `json:"name"`
	Driver     string            `json:"driver"`
	Scope      string            `json:"scope,omitempty"`
	Internal   bool              `json:"internal,omitempty"`   // no way out of the network or in
	Attachable bool              `json:"attachable,omitempty"` // swarm scope: plain containers may join
	Ingress    bool              `json:"ingress,omitempty"`
	IPv4       bool              `json:"ipv4"`
	IPv6       bool              `json:"ipv6,omitempty"`
	IPAM       IPAM              `json:"ipam"`
	Options    map[string]string `json:"options,omitempty"`
	Labels     map[string]string `json:"labels,omitempty"`
	Configuration
}

// Configuration says what a network has to do with networks that only hold configuration.
type Configuration struct {
	ConfigOnly bool   `json:"configOnly,omitempty"` // it is one: others are made from it, nobody joins it
	ConfigFrom string `json:"configFrom,omitempty"` // name of the one that it was made from
}

// Network is a network as recorded: the spec with its pools chosen.
type Network struct {
	ID      string    `json:"id"`
	Created time.Time `json:"created"`
	NetworkSpec
	// Link is the name of the host's interface of a bridge network.
	Link string `json:"link,omitempty"`
	// Chosen says that the engine chose the subnets, and may add another when they are full.
	Chosen bool `json:"chosen,omitempty"`
}

// Predefined says whether the network is one that every host has and nobody may remove.
func (n *Network) Predefined() bool {
	return n.Name == NetworkBridge || n.Name == NetworkHost || n.Name == NetworkNone
}

// EndpointSpec is what a user asks of one container's place on one network.
type EndpointSpec struct {
	Aliases         []string          `json:"aliases,omitempty"`
	Links           []string          `json:"links,omitempty"` // "container[:alias]"
	IPv4            netip.Addr        `json:"ipv4,omitzero"`
	IPv6            netip.Addr        `json:"ipv6,omitzero"`
	LinkLocal       []netip.Addr      `json:"linkLocal,omitempty"`
	MAC             MAC               `json:"mac,omitzero"`
	DriverOpts      map[string]string `json:"driverOpts,omitempty"`
	GatewayPriority int               `json:"gatewayPriority,omitempty"` // the highest gives the container's default route
}

// SubnetUse is how many addresses of a subnet are taken, reserved ones included, and how many can still be chosen.
type SubnetUse struct{ InUse, Free uint64 }

// Endpoint is one container's place on one network while the container has a network namespace.
type Endpoint struct {
	ID          string       `json:"id"`
	NetworkID   string       `json:"networkID"`
	Network     string       `json:"network"` // the network's name
	ContainerID string       `json:"containerID"`
	MAC         MAC          `json:"mac,omitzero"`
	IPv4        netip.Prefix `json:"ipv4,omitzero"` // address with the length of its subnet's prefix
	IPv6        netip.Prefix `json:"ipv6,omitzero"`
	Gateway4    netip.Addr   `json:"gateway4,omitzero"`
	Gateway6    netip.Addr   `json:"gateway6,omitzero"`
	Interface   string       `json:"interface,omitempty"` // its name inside the container
	DNSNames    []string     `json:"dnsNames,omitempty"`  // the first is the answer to a reverse look-up
	Spec        EndpointSpec `json:"spec"`
}

// Port is a transport port of a container. The zero value is no port.
type Port struct {
	Number uint16 `json:"port"`
	Proto  Proto  `json:"proto"`
}

// Proto is a transport protocol by its lower-case name.
type Proto string

// The protocols that can be published.
const (
	TCP  Proto = "tcp"
	UDP  Proto = "udp"
	SCTP Proto = "sctp"
)

// Valid says whether the protocol is one that can be published.
func (p Proto) Valid() bool { return p == TCP || p == UDP || p == SCTP }

func (p Port) String() string { return fmt.Sprintf("%d/%s", p.Number, p.Proto) }

// MarshalText makes Port usable as a key of a JSON object: "80/tcp".
func (p Port) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is ParsePort.
func (p *Port) UnmarshalText(text []byte) error {
	parsed, err := ParsePort(string(text))
	if err == nil {
		*p = parsed
	}
	return err
}

// ParsePort reads "80", "80/tcp", "53/UDP".
func ParsePort(s string) (Port, error) {
	num, proto, has := strings.Cut(s, "/")
	if !has {
		proto = string(TCP)
	}
	n, err := parsePortNumber(num)
	if err != nil || n == 0 {
		return Port{}, errs.New(errs.Invalid, "port %q: want a number from 1 to 65535, with /tcp, /udp or /sctp behind it if not tcp", s)
	}
	p := Port{n, Proto(strings.ToLower(proto))}
	if !p.Proto.Valid() {
		return Port{}, errs.New(errs.Invalid, "port %q: protocol %q cannot be published; use tcp, udp or sctp", s, proto)
	}
	return p, nil
}

func parsePortNumber(s string) (uint16, error) {
	if s == "" || len(s) > 5 {
		return 0, errs.New(errs.Invalid, "port %q: want a number from 0 to 65535", s)
	}
	n := 0
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return 0, errs.New(errs.Invalid, "port %q: want a number from 0 to 65535", s)
		}
		n = n*10 + int(c-'0')
	}
	if n > 65535 {
		return 0, errs.New(errs.Invalid, "port %q: want a number from 0 to 65535", s)
	}
	return uint16(n), nil
}

// ParsePortRange reads "8080" or "8000-8010"; empty is 0, 0: the engine chooses.
func ParsePortRange(s string) (first, last uint16, err error) {
	if s == "" {
		return 0, 0, nil
	}
	a, b, has := strings.Cut(s, "-")
	if first, err = parsePortNumber(a); err != nil {
		return 0, 0, err
	}
	if last = first; has {
		if last, err = parsePortNumber(b); err != nil {
			return 0, 0, err
		}
	}
	if last < first {
		return 0, 0, errs.New(errs.Invalid, "port range %q ends before it starts", s)
	}
	return first, last, nil
}

// PortBinding publishes one port of a container on the host. As asked: HostPort 0 lets the engine choose; a HostPortEnd
// above HostPort lets it choose in that range. As bound: HostPort is the port, HostPortEnd equals it.
type PortBinding struct {
	Port
	HostIP      netip.Addr     `json:"hostIP,omitzero"` // zero or unspecified: every address of the host
	HostPort    uint16         `json:"hostPort,omitempty"`
	HostPortEnd uint16         `json:"hostPortEnd,omitempty"`
	Sources     []netip.Prefix `json:"sources,omitempty"` // who may connect; empty: everybody
}

// portBinding is PortBinding as JSON has it: without it the embedded Port's text form would stand for the whole.
type portBinding struct {
	Port        Port           `json:"port"`
	HostIP      netip.Addr     `json:"hostIP,omitzero"`
	HostPort    uint16         `json:"hostPort,omitempty"`
	HostPortEnd uint16         `json:"hostPortEnd,omitempty"`
	Sources     []netip.Prefix `json:"sources,omitempty"`
}

// MarshalJSON writes all fields, the port as "80/tcp".
func (b PortBinding) MarshalJSON() ([]byte, error) {
	return json.Marshal(portBinding{b.Port, b.HostIP, b.HostPort, b.HostPortEnd, b.Sources})
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (b *PortBinding) UnmarshalJSON(data []byte) error {
	var p portBinding
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*b = PortBinding{p.Port, p.HostIP, p.HostPort, p.HostPortEnd, p.Sources}
	return nil
}

func (b PortBinding) String() string {
	host := "*"
	if b.HostIP.IsValid() {
		host = b.HostIP.String()
		if b.HostIP.Is6() {
			host = "[" + host + "]"
		}
	}
	return fmt.Sprintf("%s:%d->%s", host, b.HostPort, b.Port)
}

// Validate checks a binding as asked.
func (b PortBinding) Validate() error {
	switch {
	case b.Number == 0:
		return errs.New(errs.Invalid, "published port without a container port")
	case !b.Proto.Valid():
		return errs.New(errs.Invalid, "published port %d: protocol %q cannot be published; use tcp, udp or sctp", b.Number, b.Proto)
	case b.HostPortEnd != 0 && b.HostPortEnd < b.HostPort:
		return errs.New(errs.Invalid, "published port %s: host port range %d-%d ends before it starts", b.Port, b.HostPort, b.HostPortEnd)
	case b.HostPortEnd != 0 && b.HostPort == 0:
		return errs.New(errs.Invalid, "published port %s: host port range must start at 1 or above", b.Port)
	case b.HostIP.IsMulticast():
		return errs.New(errs.Invalid, "published port %s: host address %s is a multicast address", b.Port, b.HostIP)
	}
	return nil
}

// MAC is an Ethernet address; the zero value means none is asked for.
type MAC [6]byte

// ParseMAC reads six hexadecimal bytes parted by colons, dashes, or given as three dotted groups.
func ParseMAC(s string) (MAC, error) {
	var m MAC
	digits := strings.NewReplacer(":", "", "-", "", ".", "").Replace(s)
	if len(digits) != 12 {
		return m, errs.New(errs.Invalid, "MAC address %q: want six bytes such as 02:42:ac:11:00:02", s)
	}
	for i := range m {
		hi, lo := hexDigit(digits[2*i]), hexDigit(digits[2*i+1])
		if hi < 0 || lo < 0 {
			return MAC{}, errs.New(errs.Invalid, "MAC address %q: want six bytes such as 02:42:ac:11:00:02", s)
		}
		m[i] = byte(hi<<4 | lo)
	}
	if m[0]&1 != 0 {
		return MAC{}, errs.New(errs.Invalid, "MAC address %q is a multicast address; the second digit must be even", s)
	}
	return m, nil
}

func hexDigit(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// IsZero says that no address is given.
func (m MAC) IsZero() bool { return m == MAC{} }

func (m MAC) String() string {
	if m.IsZero() {
		return ""
	}
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// MarshalText is String.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// UnmarshalText is ParseMAC; empty text is the zero value.
func (m *MAC) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*m = MAC{}
		return nil
	}
	parsed, err := ParseMAC(string(text))
	if err == nil {
		*m = parsed
	}
	return err
}

// ValidNetworkName says why a name cannot be a network's.
func ValidNetworkName(name string) error {
	for i, c := range []byte(name) {
		alnum := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '_' && c != '.' && c != '-') {
			return errs.New(errs.Invalid, "network name %q: only letters, digits, and after the first of these also _ . - are allowed", name)
		}
	}
	if name == "" {
		return errs.New(errs.Invalid, "network name is empty; give it one of letters, digits, _ . -")
	}
	return nil
}

// Validate checks the parts of a spec against each other; what only the host knows (routes, drivers, other networks)
// is checked where the network is made.
func (s *NetworkSpec) Validate() error {
	if err := ValidNetworkName(s.Name); err != nil {
		return err
	}
	if !s.IPv4 && !s.IPv6 && s.Driver != DriverHost && s.Driver != DriverNull && s.IPAM.Driver != "null" {
		return errs.New(errs.Invalid, "network %s: both IPv4 and IPv6 are off; a network needs one of them", s.Name)
	}
	for i, p := range s.IPAM.Pools {
		if err := p.Validate(); err != nil {
			return errs.Wrap(err, "network %s", s.Name)
		}
		if !p.Subnet.IsValid() {
			continue
		}
		if p.Subnet.Addr().Is6() && !s.IPv6 {
			return errs.New(errs.Invalid, "network %s: subnet %s is IPv6 but IPv6 is off; add --ipv6 or leave the subnet out", s.Name, p.Subnet)
		}
		for _, q := range s.IPAM.Pools[:i] {
			if q.Subnet.IsValid() && q.Subnet.Overlaps(p.Subnet) {
				return errs.New(errs.Invalid, "network %s: subnets %s and %s overlap", s.Name, q.Subnet, p.Subnet)
			}
		}
	}
	return nil
}

// Validate checks that a pool's parts lie inside its subnet. A pool without a subnet may carry nothing else.
func (p *IPPool) Validate() error {
	if !p.Subnet.IsValid() {
		if p.Range.IsValid() || p.Gateway.IsValid() || len(p.AuxAddresses) > 0 {
			return errs.New(errs.Invalid, "IP range, gateway or auxiliary addresses need the subnet they lie in; add --subnet")
		}
		return nil
	}
	if p.Subnet != p.Subnet.Masked() {
		return errs.New(errs.Invalid, "subnet %s has host bits set; did you mean %s?", p.Subnet, p.Subnet.Masked())
	}
	if p.Range.IsValid() && (p.Range.Bits() < p.Subnet.Bits() || !p.Subnet.Contains(p.Range.Addr())) {
		return errs.New(errs.Invalid, "IP range %s is not inside subnet %s", p.Range, p.Subnet)
	}
	if p.Gateway.IsValid() && !p.Subnet.Contains(p.Gateway) {
		return errs.New(errs.Invalid, "gateway %s is not inside subnet %s", p.Gateway, p.Subnet)
	}
	for name, a := range p.AuxAddresses {
		if !p.Subnet.Contains(a) {
			return errs.New(errs.Invalid, "auxiliary address %s (%s) is not inside subnet %s", a, name, p.Subnet)
		}
	}
	return nil
}
