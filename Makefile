# The one list of commands. What they need: git, make, a C compiler, and rustup's toolchain; tools/check-system says so.

# One set of flags everywhere: with another the sandbox's engine is compiled again, which takes minutes.
FLAGS := --release --workspace
.DEFAULT_GOAL := help
.PHONY: help demo bench test test-api test-long test-deploy soak check lint build guests system

help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build guests ## Run real work through a real runner, to see what Sandhog does
	target/release/sandhog-demo

bench: build ## Measure this machine, each figure beside a limit measured in the same run (BENCH="--quick" for a minute's worth)
	tools/bench $(BENCH)
	tools/bench-languages $(BENCH)

test: system ## Everything, from nothing: format, lints, documents, guests, all tests
	tools/test

test-api: build ## A real runner's HTTP API against its document, with requests that schemathesis makes of it
	tools/test-api

test-long: system ## What takes too long for `make test`: Kafka's runners and brokers killed, stopped and replaced for minutes
	tools/check-system --kafka
	cargo test $(FLAGS) --test it -- --nocapture --test-threads 1 --ignored kafka::

soak: system ## Kills, reloads, good jobs and hostile ones at random, for long: `make soak FOR=1h SEED=7 QUEUE=kafka` (both queues without)
	SANDHOG_TEST_SOAK=$(or $(FOR),10m) SANDHOG_TEST_SEED=$(SEED) cargo test $(FLAGS) --test it -- --nocapture $(if $(filter kafka,$(QUEUE)),kafka::)soak::

check: system ## What to run while working: format, lints, unit tests
	cargo fmt --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings
	cargo test $(FLAGS) --lib

test-deploy: system ## What docs/deploy has, held against the tools that read it: systemd, linters, schemas, the image's file system
	tools/test-deploy

lint: system ## Format, lints and documents
	cargo fmt --check
	cargo clippy $(FLAGS) --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc $(FLAGS) --no-deps --document-private-items

build: system ## Build the runner
	cargo build $(FLAGS)

guests: system ## Build the example handlers into target/handlers
	tools/build-guests

system:
	@tools/check-system
