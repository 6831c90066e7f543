# Everything a developer or CI runs. `make help` lists it.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

# What comes from package registries lies outside the work tree. Its path has the version, or the checksum of what it is
# made from, and so is right whenever it exists: its sources are prerequisites of order alone, because in a fresh clone
# they are always newer. Files are made under another name and moved into place: a library that runs is not overwritten.
CACHE ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/xebec
PYTHON ?= python3
ENGINE_VERSION := $(shell sed -n 's/^onnxruntime==//p' tools/python/requirements-engine.txt)
ENGINE := $(CACHE)/engine/onnxruntime-$(ENGINE_VERSION)
PEERS := clients import import-pytorch import-tensorflow import-jax peer-detection peer-recommendation judge-detection
peer = $(CACHE)/peers/$(1)-$(shell cksum < tools/python/requirements-$(1).txt | cut -d' ' -f1)
CLIENTS := $(call peer,clients)
COLLECTOR := $(CACHE)/peers/collector-$(shell cat tools/collector/go.mod tools/collector/go.sum tools/collector/main.go | cksum | cut -d' ' -f1)
H2SPEC := $(CACHE)/peers/h2spec-$(shell cat tools/h2spec/go.mod tools/h2spec/go.sum tools/h2spec/main.go | cksum | cut -d' ' -f1)
TOOLS := $(CACHE)/tools
RECOMMENDATION := examples/recommendation
PICTURES := $(CACHE)/pictures-$(shell cksum < examples/object-detection/scenes.py | cut -d' ' -f1)
ENCODER := $(CACHE)/models/encoder-$(shell cksum < models/make_encoder.py | cut -d' ' -f1).onnx
CARGO_DENY_VERSION := 0.20.2
CARGO_MACHETE_VERSION := 0.9.2

export XEBEC_ENGINE_CACHE := $(CACHE)/engine
export XEBEC_PEERS_CLIENTS := $(CLIENTS)
export XEBEC_PEERS_COLLECTOR := $(COLLECTOR)
export XEBEC_PEERS_H2SPEC := $(H2SPEC)
export XEBEC_PEERS_PEER_DETECTION := $(call peer,peer-detection)
export XEBEC_PEERS_PEER_RECOMMENDATION := $(call peer,peer-recommendation)
export XEBEC_PEERS_IMPORT := $(call peer,import)
export XEBEC_PEERS_IMPORT_PYTORCH := $(call peer,import-pytorch)
export XEBEC_PEERS_IMPORT_TENSORFLOW := $(call peer,import-tensorflow)
export XEBEC_PEERS_IMPORT_JAX := $(call peer,import-jax)

.PHONY: help demo test test-import lint bench bench-trace fuzz fuzz-keep soak residents profile tune-check judge-examples bench-examples engine peers peers-import tables collector h2spec tools generate clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

demo: engine tables ## build, serve the examples, send transactions, a picture and users; ONCE=1 stops by itself
	cargo build --release --package xebec
	$(PYTHON) tools/demo.py $(if $(ONCE),--once)

test: engine peers collector h2spec tables ## every test
	cargo build --package xebec
	cargo test --workspace --no-fail-fast

lint: tools ## formatting, clippy, docs, licences, unused dependencies
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --workspace --no-deps --document-private-items
	cargo fetch --quiet --locked
	$(TOOLS)/bin/cargo-deny --offline check licenses bans sources
	$(TOOLS)/bin/cargo-machete

bench: engine $(ENCODER) ## the table of docs/guide/performance.md; URL=grpc://host:port measures another server beside it
	cargo build --release --package xebec --package xebec-e2e --bins
	target/release/figures bench --encoder $(ENCODER) $(if $(URL),--url $(URL))

soak: engine $(ENCODER) ## 60 s at three times the capacity, then 10 min of reloads at 70 %: memory, refusals, goodput, answers
	cargo build --release --package xebec --package xebec-e2e --bins
	target/release/figures soak --encoder $(ENCODER)
	target/release/endure reloads

residents: engine ## 2,000 models in memory for 200, beside one that is always asked for
	cargo build --release --package xebec --package xebec-e2e --bins
	taskset -c 1 target/release/endure residents

bench-trace: engine ## what traces cost of the processor; BEFORE=a binary without them is measured beside it
	cargo build --release --package xebec --package xebec-e2e --bins
	target/release/figures trace $(if $(BEFORE),--before $(BEFORE))

judge-examples: engine tables $(call peer,judge-detection)/.done ## mAP, recall and NDCG of the examples, by the server's answers and by a loop without it
	cargo build --release --package xebec --package xebec-e2e --bins
	$(PYTHON) tools/judge_examples.py --python $(call peer,judge-detection)/bin/python

bench-examples: engine tables $(PICTURES)/.done $(call peer,peer-detection)/.done $(call peer,peer-recommendation)/.done ## the examples beside one loop and beside Python services
	cargo build --release --package xebec --package xebec-e2e --bins
	target/release/figures detect --pictures $(PICTURES)
	target/release/figures recommend

$(PICTURES)/.done: | examples/object-detection/scenes.py $(call peer,judge-detection)/.done
	$(call peer,judge-detection)/bin/python examples/object-detection/judge.py --scenes 60 --save-pictures $(@D)
	touch $@

profile: engine ## where the server's time goes under that load, by perf; PROTOCOL=grpc, binary or json
	cargo build --profile profiling --package xebec
	tools/profile.sh $(or $(PROTOCOL),binary)

$(ENCODER): | models/make_encoder.py $(CLIENTS)/.done
	mkdir -p $(@D)
	$(CLIENTS)/bin/python models/make_encoder.py $(@D)/.new-$(@F)
	mv $(@D)/.new-$(@F) $@

tables: $(RECOMMENDATION)/tables/.done ## tables of the recommendation example, made again from their seed
$(RECOMMENDATION)/tables/.done: $(RECOMMENDATION)/log.py $(RECOMMENDATION)/make_tables.py $(wildcard $(RECOMMENDATION)/models/*) | $(CLIENTS)/.done
	$(CLIENTS)/bin/python $(RECOMMENDATION)/make_tables.py
	touch $@

engine: $(ENGINE)/.done ## ONNX Runtime's library, from its PyPI wheel
$(ENGINE)/.done: NEW = $(CACHE)/engine/.new-$(ENGINE_VERSION)
$(ENGINE)/.done: | tools/python/requirements-engine.txt
	rm -rf $(NEW) && mkdir -p $(NEW)
	$(PYTHON) -m pip download --quiet --no-deps --only-binary=:all: --dest $(NEW) --requirement tools/python/requirements-engine.txt
	cd $(NEW) && $(PYTHON) -m zipfile -e onnxruntime-*.whl wheel
	cd $(NEW) && mv wheel/onnxruntime/capi/libonnxruntime.so.* wheel/onnxruntime/LICENSE wheel/onnxruntime/ThirdPartyNotices.txt .
	rm -r $(NEW)/wheel $(NEW)/onnxruntime-*.whl
	touch $(NEW)/.done
	rm -rf $(ENGINE) && mv $(NEW) $(ENGINE)

# A virtual environment knows its own path: it is made in place, and anew if it is not whole.
define venv
$(call peer,$(1))/.done: | tools/python/requirements-$(1).txt
	rm -rf $$(@D)
	$$(PYTHON) -m venv $$(@D)
	$$(@D)/bin/pip install --quiet --requirement tools/python/requirements-$(1).txt
	touch $$@
endef
$(foreach name,$(PEERS),$(eval $(call venv,$(name))))

peers: $(CLIENTS)/.done $(call peer,import)/.done ## the stock clients and small frameworks that tests drive, from PyPI

peers-import: $(foreach name,clients import import-pytorch import-tensorflow import-jax,$(call peer,$(name))/.done) ## with PyTorch, TensorFlow and JAX: 8 GB

test-import: engine peers-import ## every script of docs/guide/import.md; large, so not in CI
	cargo build --package xebec
	cargo test --package xebec-e2e --test it -- --include-ignored import_guide

tune-check: engine $(ENCODER) ## how near xebec tune comes to the best of a whole grid, from bad configurations
	cargo build --release --package xebec --package xebec-e2e --bins
	target/release/tuning --encoder $(ENCODER)

collector: $(COLLECTOR)/collector ## OpenTelemetry's own collector of traces, from Go modules, for tests
$(COLLECTOR)/collector: | tools/collector/main.go
	mkdir -p $(@D)
	cd tools/collector && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(@D)/.new .
	mv $(@D)/.new $@

h2spec: $(H2SPEC)/h2spec ## the conformance judge of HTTP/2, from Go modules, for tests
$(H2SPEC)/h2spec: | tools/h2spec/main.go
	mkdir -p $(@D)
	cd tools/h2spec && CGO_ENABLED=0 go build -trimpath -ldflags "-s -w" -o $(@D)/.new .
	mv $(@D)/.new $@

tools: $(TOOLS)/bin/cargo-deny $(TOOLS)/bin/cargo-machete ## cargo-deny and cargo-machete, from crates.io
$(TOOLS)/bin/cargo-deny:
	cargo install --quiet --locked --root $(TOOLS) cargo-deny@$(CARGO_DENY_VERSION)
$(TOOLS)/bin/cargo-machete:
	cargo install --quiet --locked --root $(TOOLS) cargo-machete@$(CARGO_MACHETE_VERSION)

fuzz: ## searches for inputs that break a promise, each target for SECONDS=300; TARGET=json for one; wants a C++ compiler
	tools/fuzz.sh $(or $(SECONDS),300) $(CACHE)/fuzz $(TARGET)

fuzz-keep: ## puts the fewest inputs that reach what searches reached into fuzz/corpus, for the tests
	tools/fuzz.sh keep $(CACHE)/fuzz $(TARGET)

generate: ## Rust from proto/*.proto, and docs/reference/config.md
	cargo run --quiet --package xebec-e2e --bin generate

clean: ## build output; the cache of peers stays
	cargo clean
