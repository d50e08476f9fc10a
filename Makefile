# `make demo` and `make test` set up everything they need in .venv first; only Python >= 3.11 and make are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
# One process per processor, each with one thread; a file's tests stay together and share what they set up.
PARALLEL := -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

# Property tests with fresh examples, ten times as many (tests/support/properties.py). They may take longer than others.
HUNT := MGC_HYPOTHESIS_PROFILE=hunt OMP_NUM_THREADS=1 $(PYTEST) -m hypothesis --timeout 3600 $(PARALLEL)
MINUTES ?= 10

.PHONY: help demo test test-slow test-long test-all hunt lint format bench bench-smoke clean

help:
	@echo "make demo         compose a small dataset, then extract, train and evaluate on it"
	@echo "make test         the tests that take seconds"
	@echo "make test-all     all tests, the slow ones too"
	@echo "make test-long    every network through ONNX Runtime, more kills, ten times as many examples of each property"
	@echo "make hunt         fresh examples for the property tests until one fails, for ten minutes (MINUTES=30: thirty)"
	@echo "make lint         ruff and mypy"
	@echo "make format       let ruff format the code"
	@echo "make bench        extraction against its limits and its peers (needs a folder of MP3s), then training"
	@echo "make clean        remove the environment and build products; data/ stays"

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "mgc needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@mkdir -p $(VENV)/typed && ln -sfn ../.. $(VENV)/typed/mgc  # for mypy, see pyproject.toml
	@touch $@

# Two test processes that compile librosa's functions at the same time can spoil them: see pipeline/dsp/compilation.py.
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

# The last round is finished, so it may take some minutes longer.
hunt: $(VENV)/compiled
	@end=$$(($$(date +%s) + 60 * $(MINUTES))); round=0; \
	while [ $$(date +%s) -lt $$end ]; do \
		round=$$((round + 1)); echo "round $$round"; \
		$(HUNT) --exitfirst --quiet || exit 1; \
	done; \
	echo "$$round rounds found nothing"

test-all: test test-slow

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

bench-smoke: $(VENV)/installed
	$(BIN)/python benchmarks/extract.py --smoke
	$(BIN)/python benchmarks/scale.py --smoke

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
