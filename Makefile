# make demo    train a small network on real digits, explain it with MIP-IN: demo_output/
# make test    the quick tests; make test ARGS='-m "not slow"' those too that take many seconds each, as .ci/run does,
#              ARGS="-m slow" those that take minutes, ARGS="-k plot -x" and the like for pytest
# make lint    ruff, mypy and import-linter
# make clean   remove the environment and all that the commands above wrote
#
# The environment is made once, in .venv, and anew when setup.py changes. PYTHON=python3.12 chooses the Python that
# makes it, VENV=DIR its place.

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
INNVESTIGATE := innvestigate==2.1.2

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help demo test lint clean

STAMP := $(VENV)/.stamp
LINT_STAMP := $(VENV)/.stamp-lint
RUN := $(VENV)/bin/python

# Nothing is read from or written to the home directory, which may be empty or read-only: a user's keras.json could
# choose another backend or channels_first, a matplotlibrc another look.
export KERAS_BACKEND := tensorflow
export KERAS_HOME := $(abspath $(VENV))/keras
export MPLBACKEND := Agg
export MPLCONFIGDIR := $(abspath $(VENV))/matplotlib
export TF_CPP_MIN_LOG_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# rm -rf only on what is an environment, or nothing: VENV comes from the user. What shows that it is one goes last, so
# that an interrupted removal can be taken up again.
define remove_venv
if [ -e "$(VENV)" ] && [ ! -f "$(VENV)/pyvenv.cfg" ] && [ -n "$$(ls -A "$(VENV)")" ]; then \
	echo "make: VENV=$(VENV) exists and is no virtual environment; it is left as it is. Choose another VENV, or remove it." >&2; \
	exit 1; \
fi; \
if [ -d "$(VENV)" ]; then find "$(VENV)" -mindepth 1 -maxdepth 1 ! -name pyvenv.cfg -exec rm -rf -- {} +; fi; \
rm -rf -- "$(VENV)"
endef

help:
	@sed -n '/^#/!q; s/^# \{0,1\}//p' Makefile

demo: $(STAMP)
	$(RUN) -m examples.demo --out demo_output

# The tests' matrices are small: a worker a core, by file (what a file fits, it fits once), with one thread each. The
# order of the files is that of tests/conftest.py.
test: export OPENBLAS_NUM_THREADS := 1
test: export TF_NUM_INTRAOP_THREADS := 1
test: $(STAMP)
	$(RUN) -m pytest -n auto --maxprocesses 4 --dist loadfile $(ARGS)

lint: $(LINT_STAMP)
	$(RUN) -m ruff check .
	$(RUN) -m mypy
	$(VENV)/bin/lint-imports --no-cache --no-logo

# iNNvestigate's pins, Python < 3.12 among them, are stale: with tf-keras and future beside it, it runs on all that
# setup.py allows. The stamp is written last: what an interrupted or failed install leaves is removed by the next make.
$(STAMP): setup.py
	@command -v "$(PYTHON)" > /dev/null || { \
		echo "make: no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	}
	@"$(PYTHON)" -c 'import sys; v = "%d.%d" % sys.version_info[:2]; sys.exit(0 if sys.version_info >= (3, 11) else \
		"make: mipin_keras needs Python 3.11 or newer; $(PYTHON) is " + v + ". Name a newer one: make PYTHON=python3.12")'
	@$(remove_venv)
	"$(PYTHON)" -m venv "$(VENV)"
	$(RUN) -m pip install --quiet --editable '.[test,innvestigate]'
	$(RUN) -m pip install --quiet --no-deps --ignore-requires-python $(INNVESTIGATE)
	@touch $@

$(LINT_STAMP): $(STAMP)
	$(RUN) -m pip install --quiet --editable '.[dev]'
	@touch $@

clean:
	@$(remove_venv)
	rm -rf demo_output build dist mipin_keras.egg-info .pytest_cache .ruff_cache .mypy_cache
	find mipin_keras tests docs examples benchmarks reproduce_paper -name __pycache__ -type d -prune -exec rm -rf {} + 2> /dev/null || true
