# make demo   creates the environment, installs imgtool, and runs the main job on synthetic images
# make test   creates the environment, installs imgtool, and runs the tests
# Both set up everything they need on a Debian machine with Python 3.10 to 3.13.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
DEMO   := demo
CORES  := $(shell nproc 2>/dev/null || echo 1)

APT_BUILD := g++ libjpeg62-turbo-dev
# libgl1 and libsm6 are for OpenCV, which ultralytics imports; chromium brings the other libraries that it links to.
APT_TEST  := wordnet-base wordnet-sense-index chromium chromium-driver libgl1 libsm6

# $(call apt,PACKAGES) installs missing packages as root, and lists them otherwise. Without dpkg it does nothing.
define apt
	@command -v dpkg >/dev/null || exit 0; \
	missing=; for p in $(1); do dpkg -s $$p >/dev/null 2>&1 || missing="$$missing $$p"; done; \
	if [ -z "$$missing" ]; then exit 0; fi; \
	if [ "$$(id -u)" != 0 ]; then echo "Debian packages are missing; run as root: apt-get install$$missing"; exit 1; fi; \
	echo "installing$$missing"; apt-get update -qq; \
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$missing >/dev/null
endef

.PHONY: demo test test-all test-cpus test-compilers test-pythons test-lowest lint fuzz fuzz-coverage docs gpu-check wheel wheel-check install clean

install: $(READY)

$(READY): pyproject.toml setup.py $(wildcard pipelines/codec/_native/*) training/models/_norm_act.cpp
	$(call apt,$(APT_BUILD))
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing imgtool and its dependencies into $(VENV) (downloads about 3 GB: the CUDA build of PyTorch)"
	$(BIN)/pip install -q -e '.[dev]'
	@touch $@

demo: install
	@rm -rf $(DEMO)
	@echo; echo "== 1/5 sample: draw synthetic images in the layout of the ILSVRC2012 archives"
	$(BIN)/imgtool sample --out $(DEMO)/ILSVRC2012
	@echo; echo "== 2/5 prepare: convert the archives to shards, class table and manifest"
	$(BIN)/imgtool prepare --src $(DEMO)/ILSVRC2012 --out $(DEMO)/data --max-side 160
	@echo; echo "== 3/5 train: train the n model for 12 epochs at 64 pixels"
	$(BIN)/imgtool train --size n --data $(DEMO)/data --imgsz 64 --epochs 12 --batch 64 --name $(DEMO)/run
	@echo; echo "== 4/5 val: evaluate the best epoch on the 200 validation images (chance: 10 %)"
	$(BIN)/imgtool val --weights $(DEMO)/run --data $(DEMO)/data
	@echo; echo "== 5/5 predict: classify one validation image"
	@tar -xOf $(DEMO)/ILSVRC2012/ILSVRC2012_img_val.tar ILSVRC2012_val_00000001.JPEG > $(DEMO)/image.JPEG
	$(BIN)/imgtool predict $(DEMO)/image.JPEG --weights $(DEMO)/run
	@echo; echo "all results are in $(DEMO)/: ILSVRC2012 (archives), data (shards), run (checkpoints, results.csv)"

test: install
	$(call apt,$(APT_TEST))
	$(BIN)/pytest -q -n $(CORES) --dist loadfile

test-all: install
	$(call apt,$(APT_TEST))
	$(BIN)/pytest -q -n $(CORES) --dist loadfile -m ""

# The tests on simulated processors, with one and three threads, in another locale and time zone:
# tests/test_processors.py.
test-cpus: install
	$(call apt,$(APT_TEST) qemu-user-static)
	$(BIN)/pytest -q -n $(CORES) -m "" tests/test_processors.py

# The tests on every supported Python, and with the lowest versions that pyproject.toml allows (noxfile.py). ARGS= is
# passed to pytest.
test-pythons: $(BIN)/nox
	$(call apt,$(APT_BUILD) $(APT_TEST))
	$(BIN)/nox -s tests -- $(ARGS)

test-lowest: $(BIN)/nox
	$(call apt,$(APT_BUILD) $(APT_TEST))
	$(BIN)/nox -s tests-lowest -- $(ARGS)

$(BIN)/nox:
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q 'nox[uv]>=2025.2'

# Builds the C++ code with clang and for aarch64, without warnings; runs the codec's tests with clang's build; compares
# the bytes of all builds. libjpeg-turbo for aarch64 is unpacked into build/, not installed.
APT_COMPILERS := clang g++-aarch64-linux-gnu qemu-user-static
CLANG   := $(CURDIR)/build/clang
AARCH64 := $(CURDIR)/build/aarch64
APT_ARM := apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o APT::Sandbox::User= \
	-o Dir::State::Lists=$(AARCH64)/lists -o Dir::Cache=$(AARCH64)/cache
STALE   := build/lib* build/temp* build/bdist*
test-compilers: install
	$(call apt,$(APT_COMPILERS))
	rm -rf $(CLANG) $(AARCH64) $(STALE)
	mkdir -p $(AARCH64)/lists/partial $(AARCH64)/cache/archives/partial
	$(APT_ARM) update
	cd $(AARCH64) && $(APT_ARM) download libjpeg62-turbo-dev && dpkg -x libjpeg62-turbo-dev_*.deb .
	CC=clang CXX=clang++ CFLAGS=-Werror $(BIN)/pip install -q --no-deps --target $(CLANG) .
	rm -rf $(STALE)
	cd / && PYTHONPATH=$(CLANG) $(CURDIR)/$(BIN)/python -c "from imgtool.pipelines.codec import _native as n; assert '/clang/' in n.__file__"
	PYTHONPATH=$(CLANG) $(BIN)/pytest -q -n $(CORES) --dist loadfile tests/training/models/test_norm_act.py \
		tests/pipelines/codec $(addprefix tests/pipelines/loaders/test_,loaders.py stores.py)
	$(BIN)/pytest -q -m "" tests/pipelines/codec/test_compilers.py

# Fuzzes the codec for TIME seconds, under sanitizers and against libjpeg: tests/fuzz/README.md
TIME ?= 90
fuzz: install
	$(call apt,clang)
	$(call apt,libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev)
	$(BIN)/python tests/fuzz/run.py $(TIME)

# Measures which lines of the codec the fuzzers' seed corpus reaches.
fuzz-coverage: install
	$(call apt,clang llvm)
	$(call apt,libclang-rt-$$(clang -dumpversion | cut -d. -f1)-dev)
	$(BIN)/python tests/fuzz/coverage.py

# mypy checks the package as users install it, because an editable install has no package folder to check.
lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	rm -rf build/installed
	$(BIN)/pip install -q --no-deps --target build/installed .
	cd build/installed && MYPYPATH=. ../../$(BIN)/mypy --config-file ../../pyproject.toml -p imgtool

# docs/cli.md from the commands themselves, then the documentation as a site: build/site/index.html
docs: install
	$(BIN)/python docs/cli.py
	$(BIN)/python docs/site.py
	@echo "build/site/index.html"

# Measures every claim about GPUs: imgtool bench gpu. Options: SRC=images, TINY=Tiny-ImageNet, OUT=folder of the JSON
# files, ONLY="model loaders", ARGS="--sizes n". PYTHON=… measures the imgtool of that interpreter, and installs nothing.
ifeq ($(origin PYTHON),command line)
GPU_PYTHON := $(PYTHON)
else
GPU_PYTHON := $(BIN)/python
gpu-check: install
endif
gpu-check:
	$(GPU_PYTHON) -m imgtool bench gpu $(addprefix --only ,$(ONLY)) \
		$(if $(SRC),--src $(SRC)) $(if $(TINY),--tiny $(TINY)) $(if $(OUT),--out $(OUT)) $(ARGS)

# Builds dist/: the sdist, and one wheel for Python 3.10 or newer that contains libjpeg-turbo, for Linux with at least
# the glibc version in its name. The same commit, tools and libjpeg-turbo give the same bytes.
wheel: export SOURCE_DATE_EPOCH ?= $(shell git log -1 --pretty=%ct)
wheel: install
	rm -rf dist build/wheel
	umask 022; $(BIN)/python -m build --no-isolation --outdir build/wheel
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python -m auditwheel repair --wheel-dir dist build/wheel/*.whl
	mv build/wheel/*.tar.gz dist
	@ls dist

# Installs the wheel and its dependencies, from wheels only, in a new environment; runs the main job on little data.
wheel-check: wheel
	rm -rf build/wheel-check
	$(PYTHON) -m venv build/wheel-check
	build/wheel-check/bin/pip install -q --only-binary :all: dist/*.whl
	PATH="$(abspath build/wheel-check/bin):$$PATH" .ci/smoke build/wheel-check/smoke

clean:
	rm -rf $(VENV) .nox $(DEMO) build dist *.egg-info pipelines/codec/*.so training/models/*.so
