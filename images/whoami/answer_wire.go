package main

import "net/http"

// answer is what / and /json tell.
type answer struct {
	Hostname string
	Name     string `json:",omitempty"`
	IPs      []string
	Client   string
	Method   string
	URL      string
	Proto    string
	Host     string
	Headers  http.Header
	Env      []string `json:",omitempty"`
	Uptime   string
	Requests int64
	UID      int
}
