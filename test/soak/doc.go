// Package soak lives the lives of many containers and counts what is left: mounts, links, cgroups, processes, files,
// network namespaces, and the daemon's and the supervisors' descriptors, threads, goroutines and memory. The short form
// runs with the other tests; -lives, -execs and -loads make it long. It must not reach into rooms.
package soak
