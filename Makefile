# make run    set up, build, start a development gateway and print what to open
# make test   set up what tests need, then check format, lints and run every test (as root)
# make bench-relay  measure the relay beside coturn, as root; BENCH_FLAGS='--part hairpin' and so on
# make bench-forward  memory of idle players and latency of the forwarder, as root
# make fuzz   run every fuzz target for FUZZ_SECONDS (60), from the corpora that the tests replay
# make deny   check licences and advisories of all dependencies (builds cargo-deny once)

.DEFAULT_GOAL := help
.PHONY: help run build test lint bench-relay bench-forward fuzz deny setup setup-test clean

CARGO ?= cargo
SERVE_FLAGS ?=
BENCH_FLAGS ?=
FUZZ_SECONDS ?= 60

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

bench-forward: setup
	$(CARGO) bench --locked --bench forward -- $(BENCH_FLAGS)

# Not part of `make test`: cargo-deny takes many minutes to build on two cores, and its advisory
# database changes without us, so a test run would neither be quick nor repeatable.
deny:
	@command -v cargo-deny >/dev/null 2>&1 || $(CARGO) install --locked cargo-deny
	$(CARGO) deny check

# On the stable toolchain, so without a sanitizer: there is no unsafe code where bytes of strangers
# are read. What is new lands in target/fuzz/corpus, what crashes in tests/fuzz/artifacts.
fuzz: setup
	@command -v cargo-fuzz >/dev/null 2>&1 || $(CARGO) install --locked cargo-fuzz
	for target in datagram stream relay; do \
	  mkdir -p target/fuzz/corpus/$$target && \
	  $(CARGO) fuzz run --fuzz-dir tests/fuzz --target-dir target/fuzz --sanitizer none $$target \
	    target/fuzz/corpus/$$target tests/fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -timeout=10 || exit 1; \
	done

clean:
	$(CARGO) clean
	rm -rf tests/tools/node_modules tests/tools/venv
