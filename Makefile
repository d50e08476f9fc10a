# Every target that needs mgc installs it into .venv first. Only Python >= 3.11 and make must be there.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# One test process per processor, each with one thread. The tests of a file run in one process, to share its fixtures.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Property tests with fresh examples, ten times as many (tests/support/properties.py), hence with a longer timeout.
HUNT := MGC_HYPOTHESIS_PROFILE=hunt OMP_NUM_THREADS=1 $(PYTEST) -m hypothesis --timeout 3600 $(PARALLEL)
MINUTES ?= 10

.PHONY: help demo test test-slow test-long test-all hunt docs lint format bench bench-smoke bench-gpu clean

help:
	@echo "make demo         compose a small dataset, then extract, train and evaluate on it"
	@echo "make test         run the fast tests (seconds each)"
	@echo "make test-slow    run the slow tests (minutes each)"
	@echo "make test-all     run the fast and the slow tests"
	@echo "make test-long    run the long tests: every network in ONNX Runtime, more kills, 10 x the property-test examples"
	@echo "make hunt         run the property tests on fresh examples until one fails, for 10 minutes (or MINUTES=30)"
	@echo "make docs         build the documentation as a site, in docs/_build/html"
	@echo "make lint         check the code with ruff and mypy"
	@echo "make format       format the code with ruff"
	@echo "make bench        measure extraction and training against limits and other tools (needs a folder of MP3s)"
	@echo "make bench-gpu    measure everything that mgc does on a GPU, within 8 minutes"
	@echo "make bench-smoke  run the benchmarks at their smallest sizes"
	@echo "make clean        remove the environment and build products, but not data/"

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mgc needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/typed && ln -sfn ../.. $(VENV)/typed/mgc  # mypy finds the package here: see pyproject.toml
	@touch $@

# Test processes that compile librosa's functions at the same time can damage its cache: see pipeline/dsp/compilation.py.
$(VENV)/compiled: $(VENV)/installed
	$(BIN)/python -c "import librosa.beat"
	@touch $@

demo: $(VENV)/installed
	$(BIN)/mgc demo

test: $(VENV)/compiled
	OMP_NUM_THREADS=1 $(PYTEST) -m "not slow and not long" $(PARALLEL)

test-slow: $(VENV)/compiled
	OMP_NUM_THREADS=1 $(PYTEST) -m slow $(PARALLEL)

test-long: $(VENV)/compiled
	OMP_NUM_THREADS=1 $(PYTEST) -m long $(PARALLEL)
	$(HUNT)

# The last round runs to its end, so this may take some minutes longer than MINUTES.
hunt: $(VENV)/compiled
	@end=$$(($$(date +%s) + 60 * $(MINUTES))); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
		round=$$((round + 1)); echo "round $$round"; \
		$(HUNT) --exitfirst --quiet || exit 1; \
	done; \
	echo "$$round rounds found nothing"

test-all: test test-slow

docs: $(VENV)/installed
	$(BIN)/python -m sphinx -q -W --keep-going -b html docs docs/_build/html

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed
	$(BIN)/python benchmarks/extract.py
	$(BIN)/python benchmarks/train.py
	$(BIN)/python benchmarks/audit.py

bench-gpu: $(VENV)/installed
	$(BIN)/python benchmarks/gpu.py --json gpu.json

bench-smoke: $(VENV)/installed
	$(BIN)/python benchmarks/extract.py --smoke
	$(BIN)/python benchmarks/scale.py --smoke
	$(BIN)/python benchmarks/slices.py --smoke
	$(BIN)/python benchmarks/planning.py --smoke
	$(BIN)/python benchmarks/audit.py --smoke
	$(BIN)/python benchmarks/compare.py --smoke
	$(BIN)/python benchmarks/serve.py --smoke
	$(BIN)/python benchmarks/startup.py --smoke

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
