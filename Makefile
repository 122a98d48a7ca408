# The commands a new user types. `make help` lists them.

.DEFAULT_GOAL := help
.PHONY: help up down test check fmt bench setup prepare

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-9s %s\n", $$1, $$2 }' Makefile

up: ## three regions on this machine, with sample data; Ctrl-C stops them (DETACH=1: returns when ready)
	@scripts/setup
	@scripts/up

down: ## stop what `make up DETACH=1` started
	@scripts/down

test: ## every test that decides whether a change is good
	@scripts/setup tools
	@scripts/test

check: ## format, lints, dependency audit
	@scripts/setup tools
	@scripts/check

fmt: ## format the code
	@cargo fmt

bench: ## the benchmarks, each beside what it is compared to
	@scripts/setup bench
	@loadtest/bench/run

setup: ## install what `make up`, `make test` and `make bench` need
	@scripts/setup
	@scripts/setup tools
	@scripts/setup bench

prepare: ## write .sqlx/ anew after a change of SQL or schema
	@scripts/setup
	@tests/prepare-sql
