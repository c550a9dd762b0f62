package types

// ImportRequest is the body of POST /shoal/import-docker.
type ImportRequest struct {
	From       string `json:"From"`                 // Docker's data root on the engine's machine
	Containerd string `json:"Containerd,omitempty"` // the root of the containerd that holds its images, when that is not Docker's own
	DryRun     bool   `json:"DryRun,omitempty"`
	Move       bool   `json:"Move,omitempty"` // the content of volumes is moved, not copied
}

// ImportLine is one document of the stream that answers it. The last has nothing but Done, or Error when everything stopped.
type ImportLine struct {
	Kind   string `json:"Kind,omitempty"` // network, volume, image, container
	Name   string `json:"Name,omitempty"`
	Result string `json:"Result,omitempty"` // imported, present, planned, skipped, failed
	Detail string `json:"Detail,omitempty"`
	Done   bool   `json:"Done,omitempty"`
	Error  string `json:"Error,omitempty"`
}
