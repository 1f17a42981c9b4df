# The verbs. Logic lives in Python: each of these is a line or two. Exit codes are edgeproof's; make returns 2 for any.
PYTHON ?= python3
RECIPE ?= recipes/digits.toml
TARGET ?=
MODEL ?=
DEPLOYMENT ?=
KEY ?=
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed
TARGET_OPTION = $(if $(TARGET),--target $(TARGET))
ANDROID := pipeline/release/platforms/android
CARRIED_BY_RUNNER := $(wildcard targets/*.py) targets/runner calibration

.DEFAULT_GOAL := help
.PHONY: help deploy plan profile release test check bench bench-devices bench-distillation bench-fleet bench-quantization bench-release bench-android bench-web android-classes clean

help: ## show this list
	@echo "Edgeproof: takes a trained vision model to the edge and proves that it arrived."
	@echo
	@sed -n 's/^\([a-z-]*\):.*## /  make \1@/p' $(MAKEFILE_LIST) | awk -F@ '{ printf "%-25s %s\n", $$1, $$2 }'
	@echo
	@echo "  RECIPE=$(RECIPE)  TARGET=<a deployment of it; a runtime in profile; a platform in release>  MODEL=<file.onnx>  ARGS=<more options>"
	@echo "  PYTHON=$(PYTHON) (3.11 or newer) makes .venv; every verb but clean installs what it needs first."

deploy: $(INSTALLED) ## run the chain: train, quantize, measure, release (TARGET=, RECIPE=, ARGS=)
	$(BIN)/edgeproof deploy $(RECIPE) $(TARGET_OPTION) $(ARGS)

plan: $(INSTALLED) ## show what a deploy would run, what is cached, and why something is stale
	$(BIN)/edgeproof plan $(RECIPE) $(TARGET_OPTION) $(ARGS)

profile: $(INSTALLED) ## measure any ONNX file (MODEL=file.onnx TARGET=runtime)
	$(if $(and $(MODEL),$(TARGET)),,$(error make profile: name MODEL=file.onnx and TARGET=runtime))
	$(BIN)/edgeproof profile $(MODEL) --target $(TARGET) $(ARGS)

release: $(INSTALLED) ## package a deployment that passed for apps (TARGET=android|ios|linux|web, DEPLOYMENT=, KEY=private.pem)
	$(if $(TARGET),,$(error make release: name TARGET=android, ios, linux or web))
	$(BIN)/edgeproof release $(RECIPE) --for $(TARGET) $(if $(DEPLOYMENT),--deployment $(DEPLOYMENT)) $(if $(KEY),--key $(KEY)) $(ARGS)

test: $(INSTALLED) ## run the tests (ARGS="-k name")
	$(BIN)/pytest -n auto --dist loadfile $(ARGS)

check: $(INSTALLED) ## format, lint, strict types, import contract, Python 3.8 where devices need it, links of the docs
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/vermin --no-tips --violations -t=3.8- $(CARRIED_BY_RUNNER)
	$(BIN)/pytest -q tests/test_docs.py

bench: $(INSTALLED) ## measure side by side against peers; tables go to build/bench/
	@for file in benchmarks/bench_*.py; do echo "$$file"; PYTHONPATH=. $(BIN)/python "$$file" $(ARGS) || exit 1; done

bench-devices: $(INSTALLED) ## provoke 25 faults of devices, cables and hosts on a loopback sshd, and what becomes of jobs (4 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/device_faults.py $(ARGS)

bench-distillation: $(INSTALLED) ## measure distillation beside torchdistill (which gets an environment in build/)
	PYTHONPATH=. $(BIN)/python benchmarks/bench_distillation.py $(ARGS)

bench-fleet: $(INSTALLED) ## deploy to 10, 20, 35 and 50 devices of a loopback sshd at once: time and memory a device (10 minutes)
	PYTHONPATH=. $(BIN)/python benchmarks/fleet_deploy.py $(ARGS)

bench-quantization: $(INSTALLED) ## measure int8 and auto beside Olive, NNCF, aimet-torch and others (they get an environment in build/)
	PYTHONPATH=. $(BIN)/python benchmarks/bench_quantization.py $(ARGS)

bench-release: $(INSTALLED) ## tamper with the release and every platform's package in 62 ways each, and see whether verify catches it (ARGS=release.zip)
	PYTHONPATH=. $(BIN)/python benchmarks/release_tampering.py $(ARGS)

bench-android: $(INSTALLED) ## packages for Android in the hands of javac, a JVM, Gradle, aapt2 and others (ARGS=release.zip)
	PYTHONPATH=. $(BIN)/python benchmarks/android_check.py $(ARGS)

bench-web: $(INSTALLED) ## a package for the web in the hands of npm, Node, TypeScript, Vite and Chromium (ARGS=release.zip)
	PYTHONPATH=. $(BIN)/python benchmarks/web_check.py $(ARGS)

android-classes: ## compile the classes of Android packages, after a change of their sources (needs javac 17)
	rm -rf $(ANDROID)/classes && mkdir $(ANDROID)/classes
	javac --release 8 -Xlint:all,-options,-processing -Werror -g:source,lines -implicit:none -proc:none \
		-sourcepath tests/pipeline/android_doubles -d $(ANDROID)/classes $(ANDROID)/java/*.java

clean: ## remove build/: results, store, reports and releases
	rm -rf build

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "make: expected Python 3.11 or newer; got $$($(PYTHON) --version 2>&1) as $(PYTHON)." \
			"Name another: make PYTHON=python3.12" >&2; exit 1; }
	@echo "make: installing into .venv (a few minutes, once)"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[onnxruntime,openvino,dev]'
	touch $@
