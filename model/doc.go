// Package model holds the nouns of Shoal: container, image, network, volume and what they are made of, with their
// validation; a file per noun. It is pure: no goroutine, lock, clock, randomness, file, socket or system call, and
// it knows no wire format; api/convert maps it to and from the Docker Engine API.
package model
