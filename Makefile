# make run    set up, build, start a development gateway and print what to open
# make test   set up what tests need, then check format, lints and run every test (as root)
# make bench-relay  measure the relay beside coturn, as root; BENCH_FLAGS='--part hairpin' and so on
# make deny   check licences and advisories of all dependencies (builds cargo-deny once)

.DEFAULT_GOAL := help
.PHONY: help run build test lint bench-relay deny setup setup-test clean

CARGO ?= cargo
SERVE_FLAGS ?=
BENCH_FLAGS ?=

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@scripts/setup run

setup-test:
	@scripts/setup test

build: setup
	$(CARGO) build --release --locked

# The release build: encrypting and forwarding media unoptimised would stutter.
run: build
	target/release/veilgate serve --dev $(SERVE_FLAGS)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets --locked -- -D warnings

test: setup-test lint
	$(CARGO) test --locked

# Not part of `make test`: speed is measured, never asserted.
bench-relay: setup
	$(CARGO) bench --locked --bench relay -- $(BENCH_FLAGS)

# Not part of `make test`: cargo-deny takes many minutes to build on two cores, and its advisory
# database changes without us, so a test run would neither be quick nor repeatable.
deny:
	@command -v cargo-deny >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

clean:
	$(CARGO) clean
	rm -rf tests/tools/node_modules tests/tools/venv
