# The whole installation is here: `make demo` and `make test` install what they need into .venv, once.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --quiet --disable-pip-version-check
DEMO_DIR ?= demo-run

# A stamp is touched when its step is done. The step runs again when one of its sources changes.
CORE := $(VENV)/.core
GPU := $(VENV)/.gpu
HOROVOD := $(VENV)/.horovod
TEST := $(VENV)/.test
JS := $(VENV)/.js
DOCS := $(VENV)/.docs
PCLUSTER := .venv-pcluster

.PHONY: help demo docs test test-all fuzz chaos test-pythons test-cu112 lint format bench bench-data bench-speed bench-text horovod horovod-gpu install system-packages clean

help: ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(CORE) ## every stage on built-in Korean text, from text to a PyTorch folder, in minutes
	$(BIN)/kogpt2 demo --dir $(DEMO_DIR)

install: $(CORE) ## the package for the CPU, into .venv

# One environment holds one MXNet: after `make horovod-gpu` it stays the GPU build, until .venv is removed.
MXNET = $(if $(wildcard $(GPU)),cu112,cpu)

$(CORE): setup.py constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt setuptools wheel
	$(PIP) install -c constraints.txt -e '.[$(MXNET)]'
	touch $@

# Horovod compiles against the installed MXNet, so it comes after it and without pip's build isolation.
HOROVOD_BUILD := HOROVOD_WITH_MXNET=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_PYTORCH=1
HOROVOD_INSTALL = $(PIP) install -c constraints.txt --no-build-isolation horovod

horovod: $(HOROVOD) ## Horovod with Gloo, for several workers on CPUs

$(HOROVOD): $(CORE)
	$(PIP) install -c constraints.txt cmake cffi cloudpickle psutil pyyaml packaging
	if test -e $(GPU); then $(MAKE) horovod-gpu; else PATH="$(CURDIR)/$(BIN):$$PATH" \
		$(HOROVOD_BUILD) HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 $(HOROVOD_INSTALL); fi
	touch $@

# The GPU build replaces the CPU build, and Horovod is built against it.
horovod-gpu: setup.py constraints.txt ## MXNet's GPU build, and Horovod with NCCL, MPI and Gloo (needs CUDA, NCCL, Open MPI)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt setuptools wheel cmake cffi cloudpickle psutil pyyaml packaging
	$(PIP) uninstall -y mxnet horovod
	$(PIP) install -c constraints.txt -e '.[cu112]'
	PATH="$(CURDIR)/$(BIN):$$PATH" $(HOROVOD_BUILD) HOROVOD_GPU=CUDA HOROVOD_GPU_OPERATIONS=NCCL HOROVOD_WITH_MPI=1 \
		HOROVOD_WITH_GLOO=1 $(HOROVOD_INSTALL) --no-cache-dir --no-binary horovod
	touch $(GPU) $(CORE) $(HOROVOD)

# seqeval declares what its build needs in an old way, which pip follows to the end only with --use-pep517.
$(TEST): $(HOROVOD)
	$(PIP) install --use-pep517 -c constraints.txt -e '.[$(MXNET),convert,test]'
	touch $@

# transformers.js, which a test of the converted folder runs with node (475 MB). Without npm that test is skipped: as a
# Debian package npm brings 356 others. The scripts that --ignore-scripts leaves out would download libraries for GPUs.
TRANSFORMERS_JS := @huggingface/transformers@4.3.2
$(JS): Makefile $(TEST)
	if npm install --silent --ignore-scripts --no-audit --no-fund --prefix $(VENV) $(TRANSFORMERS_JS); then touch $@; \
	else echo "npm cannot install transformers.js: its test will be skipped"; fi

$(DOCS): setup.py constraints.txt $(CORE)
	$(PIP) install -c constraints.txt -e '.[$(MXNET),docs]'
	touch $@

# The variable silences Material's word on its own future, which is not about these pages. With --quiet, --strict would
# count no warnings.
docs: $(DOCS) ## the documentation as a site, in build/site; any warning ends it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --clean
	@echo "build/site/index.html; with its search: $(BIN)/python -m http.server --directory build/site"

# ParallelCluster's own schema of a cluster. It needs older libraries than ours, so it has an environment of its own
# (70 MB), without its CDK and its web server, which the schema does not need.
$(PCLUSTER)/.ready: constraints.txt
	test -x $(PCLUSTER)/bin/python || $(PYTHON) -m venv $(PCLUSTER)
	$(PCLUSTER)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt boto3 marshmallow packaging PyYAML
	$(PCLUSTER)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps aws-parallelcluster
	touch $@

# Tests wait half of their time, so more processes than cores run side by side. Each
# computes with one thread, which does not spin; tests of several threads set their number themselves. Bytecode is
# kept, because tests start hundreds of processes. A test that hangs or crashes costs its process, and is tried again.
TEST_PROCESSES ?= 5
PYTEST = OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder --max-worker-restart 2

test: $(TEST) $(JS) ## the test suite
	$(PYTEST) -m 'not slow'

test-all: $(TEST) $(JS) $(DOCS) $(PCLUSTER)/.ready ## everything: slow tests too, the other Pythons, the GPU build on a CPU
	$(PYTEST)
	$(MAKE) test-pythons test-cu112

# atheris gives it the coverage of our code; without it inputs are chosen by how the ones before ended.
FUZZ_EXECUTIONS ?= 1000000
fuzz: $(TEST) ## every parser on hostile files, 20 to 30 minutes; FUZZ_EXECUTIONS=N, FUZZ_JSON=FILE for the findings
	$(PIP) install -c constraints.txt -e '.[$(MXNET),fuzz]'
	$(BIN)/python -m tests.fuzz.run --executions $(FUZZ_EXECUTIONS) $(if $(FUZZ_JSON),--json "$(FUZZ_JSON)")

chaos: $(TEST) ## kills, full disks, changed bytes and more on real trainings, an hour; CHAOS="save --seed 3" chooses
	$(BIN)/python tests/chaos/run.py $(CHAOS)

lint: $(TEST) ## ruff, the order of imports, words, mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python tests/words/check.py
	mkdir -p $(VENV)/names && ln -sfn ../../launch $(VENV)/names/kogpt2_launch
	$(BIN)/mypy

format: $(TEST) ## let ruff rewrite what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test-pythons: ## the core on Python 3.9 and 3.10: install from looser bounds, import, a training step
	tests/install/pythons.sh 3.9 3.10

test-cu112: $(CORE) ## the mxnet-cu112 build in an environment of its own (3.3 GB), on the CPU, with a stub of the driver
	rm -rf .venv-cu112
	$(BIN)/python tests/install/cu112_check.py --venv .venv-cu112

bench: bench-speed bench-data $(if $(BENCH_TEXT),bench-text) ## every benchmark, hours; BENCH_TEXT=FILE adds training on a document a line

SHAPES ?= 2x256 8x128 1x1024
bench-speed: $(TEST) ## a training step, generation and two workers, against PyTorch and transformers; SHAPES="2x256 ..."
	for shape in $(SHAPES); do for precision in float32 bfloat16; do \
		$(BIN)/python benchmarks/training_speed.py --shape $$shape --precision $$precision || exit 1; done; done
	for precision in float32 bfloat16; do \
		$(BIN)/python benchmarks/generation_speed.py --precision $$precision || exit 1; done
	$(BIN)/python benchmarks/scaling_speed.py --precision bfloat16

bench-text: $(TEST) ## training on BENCH_TEXT: an hour's run against n-grams, then every precision for 600 updates
	benchmarks/reviews.sh "$(BENCH_TEXT)"
	$(BIN)/python benchmarks/convergence.py bench-reviews/shards --dir bench-convergence --out bench-convergence.svg

bench-data: $(TEST) ## benchmarks of the data path; BENCH_PEERS=DIR compares with other projects (several GB)
	$(BIN)/python benchmarks/reader.py $(if $(BENCH_PEERS),--peers "$(BENCH_PEERS)/reader")
	$(BIN)/python benchmarks/cleaning.py $(if $(BENCH_PEERS),--peers "$(BENCH_PEERS)/cleaning")

# g++ and the headers of Python build Horovod; sshd, Open MPI, iproute2, Slurm and MUNGE are for the tests on two hosts,
# which are namespaces of this machine; Chromium is for those of the service's page.
system-packages: ## Debian packages needed to build and test
	apt-get update -qq
	apt-get install -y -qq --no-install-recommends g++ make python3-venv \
		openssh-server openssh-client openmpi-bin iproute2 slurm-wlm munge chromium-headless-shell >/dev/null

clean: ## remove all environments, build files and the demo's run; runs/ and bench-* stay
	rm -rf $(VENV) .venv-cu112 $(PCLUSTER) .work build *.egg-info $(DEMO_DIR)
