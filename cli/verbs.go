package cli

// common are the verbs that the help shows first.
var common = []string{"run", "exec", "ps", "build", "pull", "push", "images", "login", "logout", "search", "version", "info"}

// verbs is the command tree.
func verbs() []verb {
	return []verb{
		{name: "run", short: "Create and run a new container from an image", make: runCommand},
		{name: "exec", short: "Execute a command in a running container", make: execCommand},
		{name: "ps", short: "List containers", make: psCommand},
		{name: "build", short: "Build an image from a Dockerfile", make: buildCommand},
		{name: "pull", short: "Download an image from a registry", make: pullCommand},
		{name: "push", short: "Upload an image to a registry", make: pushCommand},
		{name: "images", short: "List images", make: imagesCommand},
		{name: "login", short: "Authenticate to a registry", make: loginCommand},
		{name: "logout", short: "Log out from a registry", make: logoutCommand},
		{name: "search", short: "Search Docker Hub for images", make: searchCommand},
		{name: "version", short: "Show the version of the command line and of the engine", make: versionCommand},
		{name: "info", short: "Display system-wide information", make: infoCommand},

		{name: "builder", short: "Manage builds", group: builderVerbs()},
		{name: "container", short: "Manage containers", group: containerVerbs()},
		{name: "context", short: "Manage contexts", group: contextVerbs()},
		{name: "image", short: "Manage images", group: imageVerbs()},
		{name: "manifest", short: "Manage Docker image manifests and manifest lists", group: manifestVerbs()},
		{name: "network", short: "Manage networks", group: networkVerbs()},
		{name: "oci", short: "Check, unpack and generate what the Open Container Initiative specifies", make: ociCommand},
		{name: "registry", short: "Serve images to others", group: registryVerbs()},
		{name: "socket", short: "Manage scoped sockets: the API for those who shall not be root", group: socketVerbs()},
		{name: "system", short: "Manage the engine", group: systemVerbs()},
		{name: "volume", short: "Manage volumes", group: volumeVerbs()},

		{name: "attach", short: "Attach local standard input, output, and error streams to a running container", make: attachCommand},
		{name: "audit", short: "Show who did what over the API", make: auditCommand},
		{name: "commit", short: "Create a new image from a container's changes", make: commitCommand},
		{name: "completion", short: "Write the completion script for a shell", make: completionCommand},
		{name: "cp", short: "Copy files/folders between a container and the local filesystem", make: cpCommand},
		{name: "create", short: "Create a new container", make: createCommand},
		{name: "diff", short: "Inspect changes to files or directories on a container's filesystem", make: diffCommand},
		{name: "doctor", short: "Say what this machine lacks for running containers, and what to do about it", make: doctorCommand},
		{name: "events", short: "Get real time events from the server", make: eventsCommand},
		{name: "explain", short: "Say why something stopped, restarts, or cannot be reached, pulled or removed", make: explainCommand},
		{name: "export", short: "Export a container's filesystem as a tar archive", make: exportCommand},
		{name: "history", short: "Show the history of an image", make: historyCommand},
		{name: "import", short: "Import the contents from a tarball to create a filesystem image", make: importCommand},
		{name: "import-docker", short: "Take over images, volumes, networks and containers of a stopped Docker", make: importDockerCommand},
		{name: "inspect", short: "Return low-level information on objects", make: inspectCommand},
		{name: "kill", short: "Kill one or more running containers", make: killCommand},
		{name: "load", short: "Load an image from a tar archive or STDIN", make: loadCommand},
		{name: "logs", short: "Fetch the logs of a container", make: logsCommand},
		{name: "pause", short: "Pause all processes within one or more containers", make: pauseCommand},
		{name: "port", short: "List port mappings or a specific mapping for the container", make: portCommand},
		{name: "ports", short: "List what of the containers can be reached, and from where", make: portsCommand},
		{name: "rename", short: "Rename a container", make: renameCommand},
		{name: "restart", short: "Restart one or more containers", make: restartCommand},
		{name: "rm", short: "Remove one or more containers", make: rmCommand},
		{name: "rmi", short: "Remove one or more images", make: rmiCommand},
		{name: "save", short: "Save one or more images to a tar archive (streamed to STDOUT by default)", make: saveCommand},
		{name: "start", short: "Start one or more stopped containers", make: startCommand},
		{name: "stats", short: "Display a live stream of container(s) resource usage statistics", make: statsCommand},
		{name: "stop", short: "Stop one or more running containers", make: stopCommand},
		{name: "tag", short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", make: tagCommand},
		{name: "top", short: "Display the running processes of a container", make: topCommand},
		{name: "unpause", short: "Unpause all processes within one or more containers", make: unpauseCommand},
		{name: "update", short: "Update configuration of one or more containers", make: updateCommand},
		{name: "wait", short: "Block until one or more containers stop, then print their exit codes", make: waitCommand},
	}
}

func containerVerbs() []verb {
	return []verb{
		{name: "attach", short: "Attach local standard input, output, and error streams to a running container", make: attachCommand},
		{name: "commit", short: "Create a new image from a container's changes", make: commitCommand},
		{name: "cp", short: "Copy files/folders between a container and the local filesystem", make: cpCommand},
		{name: "create", short: "Create a new container", make: createCommand},
		{name: "diff", short: "Inspect changes to files or directories on a container's filesystem", make: diffCommand},
		{name: "exec", short: "Execute a command in a running container", make: execCommand},
		{name: "export", short: "Export a container's filesystem as a tar archive", make: exportCommand},
		{name: "inspect", short: "Display detailed information on one or more containers", make: containerInspectCommand},
		{name: "kill", short: "Kill one or more running containers", make: killCommand},
		{name: "logs", short: "Fetch the logs of a container", make: logsCommand},
		{name: "ls", short: "List containers", make: renamed("ls", psCommand), aliases: []string{"list", "ps"}},
		{name: "pause", short: "Pause all processes within one or more containers", make: pauseCommand},
		{name: "port", short: "List port mappings or a specific mapping for the container", make: portCommand},
		{name: "prune", short: "Remove all stopped containers", make: containerPruneCommand},
		{name: "rename", short: "Rename a container", make: renameCommand},
		{name: "restart", short: "Restart one or more containers", make: restartCommand},
		{name: "rm", short: "Remove one or more containers", make: rmCommand, aliases: []string{"remove"}},
		{name: "run", short: "Create and run a new container from an image", make: runCommand},
		{name: "start", short: "Start one or more stopped containers", make: startCommand},
		{name: "stats", short: "Display a live stream of container(s) resource usage statistics", make: statsCommand},
		{name: "stop", short: "Stop one or more running containers", make: stopCommand},
		{name: "top", short: "Display the running processes of a container", make: topCommand},
		{name: "unpause", short: "Unpause all processes within one or more containers", make: unpauseCommand},
		{name: "update", short: "Update configuration of one or more containers", make: updateCommand},
		{name: "wait", short: "Block until one or more containers stop, then print their exit codes", make: waitCommand},
	}
}

func imageVerbs() []verb {
	return []verb{
		{name: "build", short: "Build an image from a Dockerfile", make: buildCommand},
		{name: "history", short: "Show the history of an image", make: historyCommand},
		{name: "import", short: "Import the contents from a tarball to create a filesystem image", make: importCommand},
		{name: "inspect", short: "Display detailed information on one or more images", make: imageInspectCommand},
		{name: "load", short: "Load an image from a tar archive or STDIN", make: loadCommand},
		{name: "ls", short: "List images", make: renamed("ls", imagesCommand), aliases: []string{"list"}},
		{name: "prune", short: "Remove unused images", make: imagePruneCommand},
		{name: "pull", short: "Download an image from a registry", make: pullCommand},
		{name: "push", short: "Upload an image to a registry", make: pushCommand},
		{name: "rm", short: "Remove one or more images", make: renamed("rm", rmiCommand), aliases: []string{"remove"}},
		{name: "save", short: "Save one or more images to a tar archive (streamed to STDOUT by default)", make: saveCommand},
		{name: "tag", short: "Create a tag TARGET_IMAGE that refers to SOURCE_IMAGE", make: tagCommand},
	}
}

func manifestVerbs() []verb {
	return []verb{
		{name: "annotate", short: "Add additional information to a local image manifest", make: manifestAnnotateCommand},
		{name: "create", short: "Create a local manifest list for annotating and pushing to a registry", make: manifestCreateCommand},
		{name: "inspect", short: "Display an image manifest, or manifest list", make: manifestInspectCommand},
		{name: "push", short: "Push a manifest list to a repository", make: manifestPushCommand},
		{name: "rm", short: "Delete one or more manifest lists from local storage", make: manifestRmCommand},
	}
}

func networkVerbs() []verb {
	return []verb{
		{name: "connect", short: "Connect a container to a network", make: networkConnectCommand},
		{name: "create", short: "Create a network", make: networkCreateCommand},
		{name: "disconnect", short: "Disconnect a container from a network", make: networkDisconnectCommand},
		{name: "inspect", short: "Display detailed information on one or more networks", make: networkInspectCommand},
		{name: "ls", short: "List networks", make: networkLsCommand, aliases: []string{"list"}},
		{name: "prune", short: "Remove all unused networks", make: networkPruneCommand},
		{name: "rm", short: "Remove one or more networks", make: networkRmCommand, aliases: []string{"remove"}},
	}
}

func registryVerbs() []verb {
	return []verb{
		{name: "serve", short: "Serve a container registry", make: registryServeCommand},
	}
}

func volumeVerbs() []verb {
	return []verb{
		{name: "backup", short: "Save a volume's content to an archive or image", make: volumeBackupCommand},
		{name: "clone", short: "Create a volume with a copy of another one's content", make: volumeCloneCommand},
		{name: "create", short: "Create a volume", make: volumeCreateCommand},
		{name: "inspect", short: "Display detailed information on one or more volumes", make: volumeInspectCommand},
		{name: "ls", short: "List volumes", make: volumeLsCommand, aliases: []string{"list"}},
		{name: "prune", short: "Remove unused local volumes", make: volumePruneCommand},
		{name: "restore", short: "Create a volume from an archive or image", make: volumeRestoreCommand},
		{name: "rm", short: "Remove one or more volumes", make: volumeRmCommand, aliases: []string{"remove"}},
		{name: "update", short: "Update a volume (cluster volumes only)", make: volumeUpdateCommand},
	}
}

func systemVerbs() []verb {
	return []verb{
		{name: "df", short: "Show disk usage", make: dfCommand},
		{name: "dial-stdio", short: "Join standard input and output to the engine's socket", hidden: true, make: dialStdioCommand},
		{name: "events", short: "Get real time events from the server", make: eventsCommand},
		{name: "info", short: "Display system-wide information", make: infoCommand},
		{name: "prune", short: "Remove unused data", make: systemPruneCommand},
	}
}

func contextVerbs() []verb {
	return []verb{
		{name: "create", short: "Create a context", make: contextCreateCommand},
		{name: "export", short: "Export a context to a tar archive FILE or a tar stream on STDOUT", make: contextExportCommand},
		{name: "import", short: "Import a context from a tar or zip file", make: contextImportCommand},
		{name: "inspect", short: "Display detailed information on one or more contexts", make: contextInspectCommand},
		{name: "ls", short: "List contexts", make: contextLsCommand, aliases: []string{"list"}},
		{name: "rm", short: "Remove one or more contexts", make: contextRmCommand, aliases: []string{"remove"}},
		{name: "show", short: "Print the name of the current context", make: contextShowCommand},
		{name: "update", short: "Update a context", make: contextUpdateCommand},
		{name: "use", short: "Set the current context", make: contextUseCommand},
	}
}

// twinOf gives the name under which a noun's verb is also found at the top: `container ls` is `ps`.
func twinOf(noun, name string) string {
	switch noun + " " + name {
	case "container ls":
		return "ps"
	case "image ls":
		return "images"
	case "image rm":
		return "rmi"
	case "container inspect", "container prune", "image inspect", "image prune":
		return ""
	}
	switch noun {
	case "container", "image":
		return name
	case "system":
		if name == "events" || name == "info" {
			return name
		}
	}
	return ""
}
