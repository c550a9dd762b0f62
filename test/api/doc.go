// Package api holds the answers of a real Docker daemon to a list of requests, valid and not, and compares ours with them:
// status codes, and the names and kinds of everything in the JSON. It needs no Docker; `-record` asks one anew.
package api
