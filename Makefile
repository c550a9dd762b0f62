# make run    build everything and try it: a container, a published web server; the daemon is left running
# make stop   end what `make run` started
# make test   everything CI runs
# make unit   the tests that need no root, in seconds; SHORT= runs those as well that start other programs hundreds of times
# make kernel the tests that need root and a real kernel (PKG=./runtime/... RUN=TestName for a part)
# make dev    a throw-away daemon in the foreground (its socket is printed)
# make fuzz   run every fuzzer for FUZZTIME each (2s); ONLY=part-of-a-name chooses; BUDGET=60 ends after so many seconds
# make vm     kernel tests in a virtual machine with Debian's kernel and cgroup v2 only (ARGS='-long' for all suites and disks)
# make arm64  vet everything for arm64 and run the unit tests under qemu-user; make arm64-short only those of packages that
#             speak with the kernel in structures and numbers, which differ between machines
# make dist   archives and Debian packages for amd64 and arm64 in dist/; make dist-check builds them twice and compares
# make image  Shoal builds its own image, into dist/ (PLATFORMS=linux/amd64,linux/arm64 for several)
# make vulncheck  look for known vulnerabilities in what is linked, where the database can be reached
# make bench  measure against the other engines that are installed; writes docs/benchmarks.md
# make bench-check  measure, and fail where a ratio is more than 20 % worse than in docs/benchmarks.md

SHELL       := /bin/bash
export CGO_ENABLED := 0
GO          ?= go
BIN         := $(CURDIR)/bin
COMMIT      := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)
STAMP       := $(shell TZ=UTC git log -1 --format=%cd --date=format-local:%Y-%m-%dT%H:%M:%SZ 2>/dev/null)
VERSION     ?= 0.1.0-dev
V           := github.com/shoalhq/shoal/lib/version
LDFLAGS     := -s -w -X $(V).Version=$(VERSION) -X $(V).GitCommit=$(COMMIT) -X $(V).BuildTime=$(STAMP)
BUILDFLAGS  := -trimpath -buildvcs=false
PKG         ?= ./...
RUN         ?= .
SHORT       ?= -short
TIMEOUT     ?= 20m
# With REPORT=1, as in `make test`, what is skipped is told, and why.
TELL        := $(if $(REPORT),| $(GO) run ./test/report)
# Signals between threads, by which Go's scheduler interrupts them, upset qemu-user now and then.
EMULATED    := GODEBUG=asyncpreemptoff=1
LAYOUT      := ./network/plan ./network/ports ./lib/overlay ./task/logs \
               ./runtime/seccomp ./runtime/cgroup ./runtime/rootfs ./runtime/initproc ./runtime/namespaces ./runtime/privilege

.PHONY: image bench-check vulncheck vm arm64 arm64-short arm64-vet dist dist-check fuzz build images unit kernel test run stop dev bench vet fmt clean shoal shoald shoal-runtime

build: shoal-runtime shoal shoald

shoal:
	$(GO) build $(BUILDFLAGS) -ldflags "$(LDFLAGS)" -o $(BIN)/$@ ./cmd/$@

# The tag lean lets idle supervisors sleep for ever; it reaches into the Go runtime (runtime/supervise/quiet_lean.go).
shoal-runtime:
	$(GO) build $(BUILDFLAGS) -tags lean -ldflags "$(LDFLAGS) -checklinkname=0" -o $(BIN)/$@ ./cmd/$@

shoald: images
	$(GO) build $(BUILDFLAGS) -ldflags "$(LDFLAGS)" -o $(BIN)/$@ ./cmd/$@

# The built-in images are made from this repository's own programs and embedded in the daemon.
images:
	$(GO) run $(BUILDFLAGS) ./cmd/build-images

unit:
	set -o pipefail; $(GO) test $(if $(REPORT),-json) $(SHORT) $(PKG) $(TELL)

kernel: build
	set -o pipefail; SHOAL_BIN=$(BIN) $(GO) test $(if $(REPORT),-json) -tags kernel -p 1 -count 1 -timeout $(TIMEOUT) -run '$(RUN)' $(PKG) $(TELL)

fuzz:
	@FUZZTIME=$(FUZZTIME) ONLY=$(ONLY) BUDGET=$(BUDGET) scripts/fuzz

vm: build
	SHOAL_BIN=$(BIN) $(GO) test -tags kernel -count 1 -timeout 0 ./test/vm -args $(ARGS)

arm64: arm64-vet
	GOARCH=arm64 $(EMULATED) scripts/arm64 $(GO) test -timeout 30m $(PKG)

arm64-short: arm64-vet
	@command -v qemu-aarch64-static >/dev/null || { echo "SKIPPED: arm64 unit tests need qemu-aarch64-static (Debian's qemu-user-static)"; exit 0; } && \
	GOARCH=arm64 $(EMULATED) $(GO) test -exec qemu-aarch64-static $(LAYOUT)

arm64-vet:
	GOARCH=arm64 $(GO) vet -tags kernel ./...

dist:
	VERSION=$(VERSION) COMMIT=$(COMMIT) STAMP=$(STAMP) scripts/dist

image: build
	@VERSION=$(VERSION) COMMIT=$(COMMIT) STAMP=$(STAMP) GO=$(GO) scripts/image

# The second build is of a copy elsewhere, so that a path that got into a file is found, too.
dist-check: dist
	copy=$$(mktemp -d) && git clone -q . $$copy/src && \
	VERSION=$(VERSION) COMMIT=$(COMMIT) STAMP=$(STAMP) DIST=$$copy/dist $$copy/src/scripts/dist >/dev/null && \
	diff dist/SHA256SUMS $$copy/dist/SHA256SUMS && rm -rf $$copy && echo "both builds are the same"

vet:
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -l $$(git ls-files '*.go'); echo "run gofmt -w on these"; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags kernel ./...

test:
	@scripts/test

run: build
	@scripts/try

stop:
	@scripts/stop

dev: build
	@scripts/dev

bench: build
	$(GO) run ./test/bench -bin $(BIN) -o docs/benchmarks.md

bench-check: build
	$(GO) run ./test/bench -bin $(BIN) -compare docs/benchmarks.md

vulncheck:
	@scripts/vulncheck

fmt:
	gofmt -w $$(git ls-files '*.go')

clean:
	rm -rf bin dist image/builtin/*.tar
