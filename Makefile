# The commands a new user types. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help up down test broken check fmt bench setup prepare regions loadtest

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

up: ## three regions on this machine, with sample data; Ctrl-C stops them (DETACH=1: returns when ready; PORT_BASE=20000: other ports)
	@.ci/setup
	@.ci/up

down: ## stop what `make up DETACH=1` started
	@.ci/down

test: ## every test that decides whether a change is good
	@.ci/setup tools
	@.ci/setup deploy
	@.ci/test

broken: ## the server that is broken on purpose, for the tests of the drill
	@cargo build --locked --features broken,platforms --bin godwit-broken
	@touch "$${CARGO_TARGET_DIR:-target}/debug/godwit-broken" # Nothing may have had to be built.

check: ## format, lints, dependency audit
	@.ci/setup tools
	@.ci/check

fmt: ## format the code
	@cargo fmt

bench: ## the benchmarks, each beside what it is compared to
	@.ci/setup bench
	@loadtest/bench/run

setup: ## install what `make up`, `make test` and `make bench` need
	@.ci/setup
	@.ci/setup tools
	@.ci/setup deploy
	@.ci/setup bench

loadtest: ## users in every region while the primary is moved, lost, and all is restarted (SCENARIO="mixed spike", DURATION=1m)
	@.ci/setup
	@.ci/setup deploy
	@cargo build --locked --release --bin godwit
	@loadtest/k6/run $(or $(SCENARIO),switchover promote rolling) $(if $(DURATION),--duration $(DURATION))

regions: ## write anew what comes from regions.yaml
	@.ci/setup deploy
	@target/tools/deploy/bin/python .ci/regions

prepare: ## write .sqlx/ anew after a change of SQL or schema
	@.ci/setup
	@tests/prepare-sql
