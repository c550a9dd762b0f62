package cli

// common are the verbs that the help shows first.
var common = []string{"run", "exec", "ps", "pull", "push", "images", "version", "info"}

// verbs is the command tree.
func verbs() []verb {
	return []verb{
		{name: "run", short: "Create and run a new container from an image", make: runCommand},
		{name: "create", short: "Create a new container", make: createCommand},
	}
}

// twinOf gives the name under which a noun's verb is also found at the top: `container ls` is `ps`.
func twinOf(noun, name string) string { return "" }
