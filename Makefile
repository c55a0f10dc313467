# Every target installs what it needs first; a second call installs nothing.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PORT ?= 5000
RUNS ?= tests/sweeps

.PHONY: install demo ui test test-runs test-slow test-cluster lint

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[test]'
	touch $@

demo: install
	$(BIN)/python -m sweeps.run quickstart --confirm 5

ui: install
	$(BIN)/python -m sweeps.ui --port $(PORT)

# A process a core, eight at most; a file's tests stay together, since they share what is expensive to make.
test: install
	$(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 10

# Whole runs of sweeps, as users start them: a part of the long tests, a quarter of an hour.
test-runs: install
	$(BIN)/python -m pytest -m slow -k 'not smoke' -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder --durations 10 $(RUNS)

# All long tests, one after the other: hours.
test-slow: install
	$(BIN)/python -m pytest -m slow

# The real ray up, on machines made of Linux namespaces: needs root, openssh-server, rsync, tmux and curl.
test-cluster: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[cluster]'
	$(BIN)/python -m pytest -m 'slow or not slow' tests/cluster

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyright
