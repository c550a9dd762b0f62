// Package network connects the containers of one host: networks and their records, addresses, bridges, published ports,
// names. The Manager decides what should be (package plan, from its records), package kernel makes it so, and the same
// audit runs at start, after trouble and when asked: the kernel's state is derived and can always be made again. For our own
// drivers the room starts no program; those of others are reached by package foreign. It knows nothing of images,
// processes or the API.
package network
