package build

import "testing"

func TestIsBuiltin(t *testing.T) {
	const digest = "@sha256:0000000000000000000000000000000000000000000000000000000000000000"
	for source, want := range map[string]bool{
		"docker/dockerfile": true, "docker/dockerfile:1": true, "docker.io/docker/dockerfile:latest": true, "docker/dockerfile:1.7": true,
		"docker/dockerfile:1.27.0": true, "docker/dockerfile:1.9.99": true, "docker/dockerfile:1-labs": true, "docker/dockerfile:labs": true,
		"docker/dockerfile:1.0-experimental": true, "docker/dockerfile:experimental": true,
		"docker/dockerfile:1.28": false, "docker/dockerfile:1.27.1": false, "docker/dockerfile:2": false, "docker/dockerfile:0.9": false,
		"docker/dockerfile:master": false, "docker/dockerfile:1.7.1.1": false, "docker/dockerfile:1.7-": false, "docker/dockerfile:1" + digest: false,
		"other/dockerfile:1": false, "ghcr.io/docker/dockerfile:1": false, "docker/dockerfile-upstream:1": false, "": false, "Not A Name": false,
	} {
		if got := isBuiltin(source, "1.27.0-dev"); got != want {
			t.Errorf("%q: built in %v, want %v", source, got, want)
		}
	}
	if isBuiltin("docker/dockerfile:1.7", "") {
		t.Error("a release that is not known serves no other")
	}
}
