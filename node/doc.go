// Package node is the composition root: it builds every room from the configuration, adapts the rooms' interfaces to
// each other, serves the API and ends in order. It takes no decisions about containers; those are engine's.
package node
