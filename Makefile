# Each target sets up what it needs and this machine lacks: see scripts/setup.sh.
.DEFAULT_GOAL := help
.PHONY: help demo test check bench gen image

help: ## Lists the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 16

demo: ## Updates a device twice before your eyes (ONCE=1: checks the outcome and ends)
	@scripts/demo.sh

test: ## Runs every test
	@scripts/test.sh

check: ## Formatting, lints, and that generated code and .sqlx are current
	@scripts/check.sh

bench: ## Runs the benchmarks (ARGS="check_in --devices 10000": one of them)
	@scripts/bench.sh $(ARGS)

image: ## Builds the container image, localhost/ota:<version> (OUT=FILE: also as an archive)
	@scripts/image.sh

gen: ## Writes generated code and .sqlx anew
	@scripts/setup.sh toolchain rust postgres
	@scripts/gen.sh
	@scripts/sqlx.sh gen
