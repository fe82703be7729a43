# Two commands do everything on a fresh machine: `make demo` and `make test`. Both make their own environment.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OUT ?= demo-out
GPUS ?= 1
TEST_WORKERS ?= 2

.PHONY: help env demo test lint bench lm-tiny clip-tiny lock clean lm-10m lm-40m lm-80m lm-150m lm-400m-1x lm-1b-1x \
	lm-3b-1x lm-7b-1x lm-7b-2x clip-mini clip-small clip-medium clip-large clip-xlarge

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 14

env: $(VENV)/.ready  ## the environment in .venv, from the pinned requirements

$(VENV)/.ready: requirements.lock requirements-nodeps.lock pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check uv
	$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -r requirements-nodeps.lock
	$(BIN)/uv pip install -q --python $(BIN)/python --no-deps -e .
	$(BIN)/python -m winnow.compile_kernels
	touch $@

demo: env  ## both tracks on the embedded pools, ending in a leaderboard page (about 5 minutes on 2 cores)
	$(BIN)/winnow demo --out $(OUT)

test: lint  ## linting, types and every test (under 15 minutes on 2 cores)
	$(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: env  ## side-by-side benchmarks against peers; prints tables
	@for script in bench/*.py; do echo "== $$script"; $(BIN)/python $$script || exit 1; done

lm-tiny: env  ## the text track of the demo: embedded pool, every text recipe, leaderboard rows
	$(BIN)/winnow demo --out $(OUT) --track text

clip-tiny: env  ## the image-text track of the demo
	$(BIN)/winnow demo --out $(OUT) --track image_text

# one entry of the benchmark: make lm-400m-1x POOL=… RECIPE=text/dclm_baseline GPUS=8 [ARGS="--fetch --on ray"]
#                             make clip-small POOL=… RECIPE=image_text/rules GPUS=4
# DRY=1 prints the plan, steps, disk and hours, and stops; POOL and RECIPE may then be left out
lm-10m lm-40m lm-80m lm-150m lm-400m-1x lm-1b-1x lm-3b-1x lm-7b-1x lm-7b-2x clip-mini clip-small clip-medium \
clip-large clip-xlarge: env
	$(BIN)/winnow benchmark $@ $(if $(POOL),--pool "$(POOL)") $(if $(RECIPE),--recipe "$(RECIPE)") --gpus $(GPUS) \
		--out "$(if $(filter file,$(origin OUT)),benchmark-out,$(OUT))" $(if $(DRY),--dry-run) $(ARGS)

lock: $(VENV)/.ready  ## resolve the pinned requirements again
	$(BIN)/uv pip compile -q pyproject.toml --extra all --extra dev --universal --python-version 3.10 \
		--no-emit-index-url --no-annotate --no-header -o requirements.lock.new
	(echo "# Pinned for Python 3.10+, made by: make lock"; cat requirements.lock.new) > requirements.lock
	rm requirements.lock.new

clean:  ## remove what demo, tests and benchmarks made (not the environment)
	rm -rf $(OUT) build .pytest_cache .mypy_cache .ruff_cache .hypothesis
