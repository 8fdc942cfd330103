# What a developer and the CI run. `make help` lists it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where scripts/tools.sh puts what it installs, shared between clones.
export ENTENTE_TOOLS_DIR ?= $(HOME)/.cache/entente-tools
export PATH := $(ENTENTE_TOOLS_DIR)/bin:$(PATH)

.PHONY: help
help: ## Lists the targets.
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 12

.PHONY: run
run: ## Runs the server from a debug build.
	cargo run --locked -- serve

.PHONY: build
build: ## Builds the release binary, target/release/entente.
	cargo build --release --locked

.PHONY: test
test: ## Installs what the tests need, and runs all of them.
	scripts/tools.sh test
	cargo test --workspace --exclude entente-benches --locked

# BENCH hands options on, as in `make bench BENCH='--database sqlite --only echo,get-user'`.
BENCH ?=
bench = cargo run --release --locked -q -p entente-benches -- run

.PHONY: bench
bench: build ## Measures on a quiet machine, about 35 minutes, and writes docs/performance.md.
	scripts/tools.sh test
	$(bench) --page docs/performance.md $(BENCH)

# Short windows, few users: what only a million of them shows is left to `make bench`.
quick = $(bench) --quick --seconds 1 --warm-up 0.3 --users 20000 --json target/bench/quick.json

.PHONY: bench-quick
bench-quick: build ## Measures for five minutes; fails if a ratio lost more than a tenth of benches/baseline.json.
	scripts/tools.sh test
	$(quick) --baseline benches/baseline.json $(BENCH)

.PHONY: bench-baseline
bench-baseline: build ## Measures for five minutes, and writes benches/baseline.json.
	scripts/tools.sh test
	$(quick) --write-baseline benches/baseline.json $(BENCH)

.PHONY: nightly
nightly: ## Runs what takes hours: 100,000 new random sequences of calls, a directory of 100,000, a report of a million lines, histories of reads, the mutants.
	scripts/tools.sh test
	ENTENTE_MODEL_SEED=0 ENTENTE_MODEL_SEQUENCES=50000 cargo test --locked --test it model:: -- --nocapture
	ENTENTE_USAGE_ROWS=1000000 cargo test --locked --test it offers::reports -- --nocapture
	ENTENTE_LEI_RECORDS=3000000 cargo test --locked --lib registry:: -- --nocapture
	ENTENTE_SYNC_ENTRIES=100000 cargo test --locked --test it synchronization::load -- --nocapture
	$(MAKE) fresh
	$(MAKE) mutants

.PHONY: mutants
mutants: ## Changes src/access in small ways, and says what no test notices: hours. PART="in main", 2/7, ..
	scripts/tools.sh test mutants
	scripts/mutants.sh $(PART)

.PHONY: fresh
fresh: ## Looks for minutes, not seconds, for reads that are older than what anybody knew. ENTENTE_FRESH_SECONDS says for how long each.
	scripts/tools.sh test
	ENTENTE_FRESH_SECONDS=$${ENTENTE_FRESH_SECONDS:-180} cargo test --locked --test it fresh::histories::no_read -- --nocapture

.PHONY: lint
lint: ## Installs the linters, and checks Rust, the protos and the dependencies.
	scripts/tools.sh lint
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	buf lint
	scripts/breaking.sh
	cargo deny --locked check --hide-inclusion-graph bans licenses sources

.PHONY: advisories
advisories: ## Checks the dependencies against the RustSec advisories, which it fetches.
	scripts/tools.sh lint
	cargo deny --locked check advisories

.PHONY: fmt
fmt: ## Formats the Rust code.
	cargo fmt --all

.PHONY: access
access: ## Writes the access matrix anew from the protos' access rules.
	scripts/tools.sh test
	ENTENTE_BLESS=1 cargo test --locked --test it access_matrix

.PHONY: clean
clean: ## Removes what was built. The installed tools stay.
	cargo clean
