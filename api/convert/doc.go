// Package convert maps the Docker Engine API's types to Shoal's nouns and back, without loss, and knows what the older
// versions of the API looked like. It is pure: no goroutine, lock, clock, randomness, file, socket or system call; the
// present time comes as an argument where a text depends on it.
//
// What it does with fields that have no meaning on Linux (CpuCount, CpuPercent, IOMaximumIOps, IOMaximumBandwidth,
// ArgsEscaped): they are dropped, and a request that sets one gets a warning. Isolation is kept, because "default" is
// valid; the engine refuses the rest.
package convert
