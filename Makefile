# make demo     the main job: an LSTM learns The Time Machine and writes; again: goes on with it
# make test     the tests
# make check    lint, format and types

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
DEMO   := runs/demo
PIP    := "$(BIN)/python" -m pip install --quiet --disable-pip-version-check -c constraints.txt

# In the name of a target, make wants a backslash before each space.
empty  :=
READY  := $(subst $(empty) $(empty),\ ,$(VENV))/.ready

.PHONY: demo test check setup dev clean

setup: $(READY)
dev: $(READY)-dev

$(READY): pyproject.toml constraints.txt
	@echo "Installing PyTorch and elman into $(VENV): some minutes, once." >&2
	$(PYTHON) -m venv "$(VENV)"
	$(PIP) torch
	$(PIP) -e .
	@touch "$@"

$(READY)-dev: $(READY)
	@echo "Installing what the tests need into $(VENV)." >&2
	$(PIP) -e '.[dev]'
	@touch "$@"

demo: setup
	@if [ -d $(DEMO) ]; then \
	  "$(BIN)/elman" train language-model --resume $(DEMO); \
	else \
	  "$(BIN)/elman" train language-model --recipe benchmarks/recipes/time-machine.toml --run $(DEMO); \
	fi

test: dev
	"$(BIN)/python" -m pytest -n auto

check: dev
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"

clean:
	rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .hypothesis
