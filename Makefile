# Everything a newcomer runs. `make serve` goes from a fresh clone to a server that answers over the sample corpus;
# `make test` is what CI runs. Both need Rust, a C++ compiler, Python 3 with pip, and nothing else; the tests of the web
# page and of the metrics take Debian's Chromium and Prometheus too, and are skipped where there are none; with
# ANCED_REQUIRE_TOOLS=1, as CI sets it, they fail instead.

DATA ?= data
LISTEN ?= 127.0.0.1:8080
SAMPLE ?= tests/data/nl2bash
PYTHON ?= python3
MINUTES ?= 60
CARGO ?= cargo
# GPU=1 takes the CUDA 13 build of ONNX Runtime (256 MB more to fetch).
SETUP_FLAGS = $(if $(GPU),--gpu)
# apt needs root.
SUDO = $(if $(filter-out 0,$(shell id -u)),sudo)
BROWSER = chromium chromium-driver fonts-dejavu-core
BINARY = $(or $(CARGO_TARGET_DIR),target)/release/anced

.DEFAULT_GOAL := help
.PHONY: help tools browser prometheus clock setup build serve test check-api check-image fuzz bench bench-search bench-connections bench-train bench-ablation soak clean

help: ## show these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

tools:
	@command -v $(CARGO) >/dev/null || { echo "make: cargo is missing; install Rust from https://rustup.rs" >&2; exit 1; }
	@command -v c++ >/dev/null || { echo "make: a C++ compiler is missing; install g++ or clang" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null || { echo "make: Python 3 with pip is missing; install python3-pip" >&2; exit 1; }

setup: tools ## fetch ONNX Runtime and the checkpoint all-MiniLM-L6-v2 (GPU=1: the CUDA build)
	$(PYTHON) scripts/setup.py $(SETUP_FLAGS)

prometheus: ## Prometheus and promtool, for the tests of metrics and dashboards (Debian's package)
	@scripts/unpack prometheus prometheus promtool

clock: ## a library that makes clocks jump, for the tests of that (Debian's package)
	@scripts/unpack libfaketime

browser: ## Chromium and its driver, for the tests of the web page (Debian's packages)
	@command -v chromium >/dev/null && command -v chromedriver >/dev/null \
		|| { $(SUDO) apt-get update && $(SUDO) apt-get install -y --no-install-recommends $(BROWSER); } \
		|| echo "make: no chromium and chromedriver, and apt-get cannot install them: the tests of the web page are skipped" >&2

build: tools ## compile the release binary
	$(CARGO) build --release --locked

serve: setup build ## serve the sample corpus on LISTEN (127.0.0.1:8080), from the data folder DATA (data)
	$(BINARY) serve --data "$(DATA)" --listen "$(LISTEN)" --sample "$(SAMPLE)"

test: setup prometheus clock browser ## format, lints, tests and documentation, as CI runs them
	$(CARGO) fmt --check
	$(CARGO) clippy --locked --all-targets -- -D warnings
	$(CARGO) test --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps

check-api: setup build ## ask everything that /openapi.json allows, and more (schemathesis): five minutes
	scripts/check-api

check-image: ## build the container image and run it read-only, with a refresh and a restart (podman or docker)
	scripts/check-image

fuzz: setup ## fuzz the parsers of outside input (cargo-fuzz, a nightly compiler): ten minutes each
	scripts/fuzz

bench: setup ## micro-benchmarks
	$(CARGO) bench --locked --benches

bench-search: setup build ## the server under 1, 8 and 64 clients, beside FastAPI + sentence-transformers + faiss
	@command -v wrk >/dev/null || $(SUDO) apt-get install -y wrk || { echo "make: wrk is missing; install it" >&2; exit 1; }
	benches/search/run

bench-connections: setup build ## what 2,000 open connections cost those who search
	benches/connections/run

bench-train: setup ## a training step beside PyTorch's (brings PyTorch into an environment of its own)
	benches/train/run

bench-ablation: setup build ## ANCE beside the other sources of negatives on the sample corpus: an hour and more
	ANCED="$(BINARY)" benches/ablation/run

soak: setup build ## MINUTES (60) of mixed load with refreshes: memory and descriptors stay flat, nothing goes wrong
	ANCED="$(BINARY)" benches/soak/run --minutes $(MINUTES)

clean: ## remove what was built and fetched; data and models stay
	$(CARGO) clean
	rm -rf .cache .onnxruntime
