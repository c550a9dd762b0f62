// Package kernel is the network room's hand on the kernel: bridges, containers' links, addresses, routes, the packet
// filter's table, connection tracking. It speaks netlink only; it starts no program, decides nothing and keeps no
// record. Real acts on the network namespace of the calling process; Fake is the same in memory, for tests.
package kernel
