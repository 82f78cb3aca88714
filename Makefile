# The two commands of the README: `make demo` and `make test`.
SEP4D := target/release/sep4d
TOWN  := runs/demo-town
RUN   := runs/demo

.PHONY: demo test setup check

# Generates a town, trains the demo model on it, measures it on held-out towns and draws original beside reconstruction.
demo: setup
	cargo build --release
	rm -rf $(RUN)
	$(SEP4D) synth $(TOWN) --preset demo
	$(SEP4D) --train --preset demo --data $(TOWN) --output $(RUN)
	$(SEP4D) eval $(RUN)
	$(SEP4D) render $(RUN)

test: setup
	cargo test

# What a change must pass besides the tests.
check: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings

setup:
	@scripts/setup.sh
