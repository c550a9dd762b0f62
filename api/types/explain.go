package types

// Explain is the body of POST /shoal/explain.
type Explain struct {
	Name string `json:"Name"`
	Type string `json:"Type,omitempty"` // container, image, network, port; empty: the first that there is
	// RegistryAuth are credentials for the registry of an image that is not here, as X-Registry-Auth has them.
	RegistryAuth string `json:"RegistryAuth,omitempty"`
}
