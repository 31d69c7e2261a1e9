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
	@echo "Setting up, once, in $(VENV): 1 of 3, a virtual environment …" >&2
	@$(PYTHON) -m venv "$(VENV)"
	@echo "2 of 3, PyTorch, some 200 MB to download …" >&2
	@$(PIP) torch
	@echo "3 of 3, elman and the libraries that it stands on …" >&2
	@$(PIP) -e .
	@touch "$@"

$(READY)-dev: $(READY)
	@echo "Installing what the tests need into $(VENV) …" >&2
	@$(PIP) -e '.[dev]'
	@touch "$@"

demo: setup
	@if [ -d $(DEMO) ]; then \
	  "$(BIN)/elman" train language-model --resume $(DEMO); \
	else \
	  echo "Training: the textbook's network on its 10,000 characters, about a minute." >&2; \
	  "$(BIN)/elman" train language-model --recipe benchmarks/recipes/demo.toml --run $(DEMO); \
	fi
	@echo
	@echo "The textbook, after 500 epochs, perplexity 1.0:"
	@echo "time travelleryou can show black is white by argument said filby"

test: dev
	"$(BIN)/python" -m pytest -n auto

check: dev
	"$(BIN)/ruff" check
	"$(BIN)/ruff" format --check
	"$(BIN)/mypy"

clean:
	rm -rf "$(VENV)" .pytest_cache .mypy_cache .ruff_cache .hypothesis
