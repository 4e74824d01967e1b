# Everything sets itself up: the first call makes .venv from the pinned sets in constraints.txt.
#
#   make quickstart   the whole loop on this machine, a few minutes
#   make test         every test
#   make docs         the reference pages, from the code
#   make check        lint, types, and every shipped config compiled
#   make e2e HOST=...  the quickstart on a Kubeflow, held against this machine; see manifests/README.md
#   make images       the container images cpu and train; EXTRAS="cpu train vllm", PLATFORM=linux/arm64 (cpu only),
#                     BASE=python@sha256:... and PIP_FIND_LINKS are passed on when set

PYTHON ?= python3
VENV ?= .venv
VLLM_VENV ?= .venv-vllm
MLMD_VENV ?= .venv-mlmd
BIN := $(VENV)/bin
OUTPUT ?= quickstart
WORKERS ?= 3

IMAGES ?= ghcr.io/llm2llm
EXTRAS ?= cpu train
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)

.PHONY: quickstart quickstart-random test test-fast docs check lint types compile images locks manifests gitops e2e vllm mlmd torchao clean bench-selection bench-dedupe bench-leaks bench-teachers bench-storage bench-students bench-answers bench-why bench-gates

$(VENV)/train.done: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "llm2llm needs Python 3.11 or newer; set PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[train]'
	@touch $@

$(VENV)/dev.done: $(VENV)/train.done
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $@

# vLLM, for its tests: it pins another PyTorch, and its CPU build is for tests only.
$(VLLM_VENV)/done: tests/vllm-requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps --requirement tests/vllm-requirements.txt
	$(VLLM_VENV)/bin/python -m pip install --quiet --no-deps --editable .
	@touch $@

vllm: $(VLLM_VENV)/done

# The metadata store of Kubeflow Pipelines, for its tests: its wheel is for Python 3.11 and pins another protobuf.
$(MLMD_VENV)/done: tests/mlmd-requirements.txt
	$(PYTHON) -m venv $(MLMD_VENV)
	$(MLMD_VENV)/bin/python -m pip install --quiet --no-deps --requirement tests/mlmd-requirements.txt
	@touch $@

mlmd: $(MLMD_VENV)/done

# What `llm2llm convert` makes int8 of a student with, in a folder of its own: it warns on every import.
torchao: .torchao/done
.torchao/done: $(VENV)/train.done
	$(BIN)/python -m pip install --quiet --no-deps --target .torchao torchao==0.18.0
	@touch $@

quickstart: $(VENV)/train.done
	$(BIN)/llm2llm run quickstart --output $(OUTPUT)

quickstart-random: $(VENV)/train.done
	$(BIN)/llm2llm run quickstart-random --output $(OUTPUT)-random

# A file's tests run in one of several processes: many of them wait, for servers and for processes they have started.
test: $(VENV)/dev.done
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadfile

test-fast: $(VENV)/dev.done
	$(BIN)/python -m pytest -m "not slow and not browser and not s3 and not vllm and not mlmd"

docs: $(VENV)/dev.done
	$(BIN)/python -m llm2llm.pipelines.cli.reference

check: lint types compile

lint: $(VENV)/dev.done
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# mypy cannot follow pyproject.toml's package-dir, so it is shown the packages where their names say they are.
types: $(VENV)/dev.done
	@mkdir -p build/types/llm2llm
	@ln -sfn ../../../components build/types/llm2llm/components
	@ln -sfn ../../../pipelines build/types/llm2llm/pipelines
	$(BIN)/mypy -p llm2llm.components -p llm2llm.pipelines

compile: $(VENV)/dev.done
	@mkdir -p build/compiled
	@for config in $$($(BIN)/llm2llm config | cut -d' ' -f1); do \
	  $(BIN)/llm2llm compile $$config --output build/compiled/$$config.yaml || exit 1; \
	done

images:
	for extra in $(EXTRAS); do \
	  docker build --file images/Dockerfile --build-arg EXTRA=$$extra --build-arg VERSION=$(VERSION) \
	    --build-arg REVISION=$$(git rev-parse HEAD 2>/dev/null || echo unknown) \
	    $(if $(PLATFORM),--platform $(PLATFORM)) \
	    $(if $(BASE),--build-arg BASE=$(BASE)) $(if $(PIP_FIND_LINKS),--build-arg PIP_FIND_LINKS=$(PIP_FIND_LINKS)) \
	    $(BUILD_ARGS) --tag $(IMAGES)/$$extra:$(VERSION) . || exit 1; \
	done

# The comparisons of the README: each prints its table, and leaves it with a plot in build/bench.
bench-dedupe bench-leaks bench-teachers bench-storage bench-students bench-answers bench-why bench-gates: bench-%: $(VENV)/dev.done
	$(BIN)/python -m tests.bench.$* $(ARGUMENTS)

# Which errors to write from: a sweep; interrupted, the same command goes on.
bench-selection: $(VENV)/train.done
	$(BIN)/llm2llm sweep selection --output build/bench/selection $(ARGUMENTS)

# Every overlay and component of manifests/: rendered, held against schemas of three Kubernetes versions, and our policies.
manifests: $(VENV)/dev.done
	tests/manifests/tools.sh
	$(BIN)/python -m pytest tests/manifests

# KFP's own resources of a config, for Argo CD or Flux: make gitops CONFIG=snips SET=placement.profile=gke
gitops: $(VENV)/dev.done
	$(BIN)/python manifests/gitops/pipeline_version.py $(CONFIG) build/gitops/$(CONFIG) $(if $(SET),--set $(SET))

# The quickstart on a real Kubeflow: make e2e HOST=http://localhost:8080 ARGUMENTS="--set placement.profile=kind"
e2e: $(VENV)/dev.done
	$(BIN)/python -m tests.e2e.run --host "$(HOST)" $(ARGUMENTS)

# What the images install, pinned by version and hash; run it when pyproject.toml or constraints.txt changes.
locks:
	$(PYTHON) -m venv build/locks
	build/locks/bin/python -m pip install --quiet uv
	build/locks/bin/python images/lock.py

clean:
	rm -rf build $(VENV) $(VLLM_VENV) $(MLMD_VENV) .mypy_cache .ruff_cache .hypothesis
