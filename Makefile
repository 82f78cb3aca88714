# The two commands of the README: `make demo` and `make test`.
SEP4D := target/release/sep4d
TOWN  := runs/demo-town
RUN   := runs/demo

# Where there is no desktop, Mesa's device-select layer complains in every test; nothing here needs it.
ifndef XDG_RUNTIME_DIR
export NODEVICE_SELECT := 1
endif

.PHONY: demo test setup check peers

# Generates towns, trains the demo model on eight of them, measures it on one that was held out and draws original beside
# reconstruction.
demo: setup
	cargo build --release
	rm -rf $(RUN)
	$(SEP4D) synth $(TOWN) --grid 32x32x8 --voxel-size 0.8x0.8x0.375 --towns 8 --frames 60
	$(SEP4D) --train --preset demo --data $(TOWN) --output $(RUN)
	$(SEP4D) eval $(RUN) --split test --clips 0
	$(SEP4D) render $(RUN) --split test

test:
	@scripts/setup.sh --tests
	cargo test

# What a change must pass besides the tests.
check: setup
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings
	cargo clippy --no-default-features -- -D warnings
	RUSTDOCFLAGS='-D warnings' cargo doc --no-deps

# Our speed beside PyTorch's and burn's, where they can be had (benches/peers/README.md). PEERS takes its options.
peers: setup
	python3 benches/peers/compare.py $(PEERS)

setup:
	@scripts/setup.sh
