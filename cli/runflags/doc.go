// Package runflags turns the flags of `run`, `create` and `update` into the bodies that the Docker Engine API takes, the
// way Docker's command line does; TestSameAsDocker holds it to that. It must not talk to an engine or print. It reads
// files only where a flag names one (--env-file, --label-file, a seccomp profile).
package runflags
