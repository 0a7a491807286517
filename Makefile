# What the project can do, one word each: `make help`. Everything runs in .venv, which the first target that
# needs it creates from requirements.txt; later calls skip what is done. All paths are relative, so the
# checkout may lie anywhere.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-builtin-rules

PY := .venv/bin/python
INSTALLED := .venv/.installed
LAB := .venv/.lab
# Brings a network, and asks for packages (a compiler's work among them) that nothing here needs.
ALONE := resemblyzer==0.1.4
# Imported at the end of the installation, which compiles what of them is used: else all processes of the first run do,
# at the same time. The whole environment would take minutes.
COMPILED := IPython, hypothesis, ipykernel.kernelapp, ipywidgets, matplotlib.pyplot, nbval.plugin, open_clip, \
  scipy.stats, selenium.webdriver, sklearn.linear_model, timm, torch, torchaudio, torchvision
# One thread a process: two test processes on two cores, and sums in the same order every time.
THREADS := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1
# Compiled once and kept, whatever the shell says: without, every process compiles PyTorch's sources anew, 1 to 4 s.
export PYTHONDONTWRITEBYTECODE :=
REPO ?=
JOBS ?=
KILLS ?= 20
ONLY ?=
ARENA ?=
NAME ?=
SEED ?=

.PHONY: help book test faults notebooks results zoo lab bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

$(INSTALLED): requirements.txt pyproject.toml
	@python=; \
	for candidate in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
	  if "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11, 5))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo "No Python of at least 3.11.5 was found on the PATH: install one, or name it with make PYTHON=/path/to/python3." >&2; \
	  exit 1; \
	fi; \
	[ -x $(PY) ] || "$$python" -m venv .venv
	@echo "Installing the pinned environment into .venv (5 GB with the CUDA build of PyTorch; minutes, once)."
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --requirement requirements.txt
	$(PY) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	$(PY) -m pip install --quiet --disable-pip-version-check --no-compile --no-deps $(ALONE)
	$(PY) -c 'import $(COMPILED)'
	@touch $@

book: $(INSTALLED)  ## build the site into _build/html (its notebooks are rendered as committed, not run)
	PYDEVD_DISABLE_FILE_VALIDATION=1 $(PY) -c 'from jupyter_book.cli.main import main; main()' \
	  build book --config _config.yml --toc "$$PWD/_toc.yml" --path-output . --all -n -W --keep-going --quiet
	@echo "The book is built: open _build/html/index.html"

test: $(INSTALLED)  ## ruff, every test in two processes, then every notebook run again
	$(PY) -m ruff check .
	$(THREADS) $(PY) -m pytest -n 2 --dist worksteal --durations=25
	@shopt -s nullglob; notebooks=(book/*.ipynb); \
	if [ $${#notebooks[@]} -gt 0 ]; then \
	  $(THREADS) TK_PROGRESS=0 $(PY) -m pytest -p no:cacheprovider -n 2 --dist loadscope \
	    --nbval-lax --nbval-cell-timeout=300 --nbval-current-env "$${notebooks[@]}"; \
	fi

faults: $(INSTALLED)  ## kill, fill, flip and interrupt every writer, many times: minutes (KILLS=20 of each)
	TK_FAULTS=$(KILLS) $(THREADS) $(PY) -m pytest tests/faults

notebooks: $(INSTALLED)  ## book/src/*.py -> book/*.ipynb, run in profile small (REPO=owner/name stamps where it is published)
	$(THREADS) $(PY) tools/build_notebooks.py $(if $(REPO),--repo "$(REPO)") $(ONLY)

results: $(INSTALLED)  ## measure every claim in the record tier: hours, resumable (ONLY=claim, ARENA=digits)
	$(PY) -m thesis_kit.cli claims run $(ONLY) --package $(if $(ARENA),--arena "$(ARENA)") $(if $(JOBS),--jobs "$(JOBS)")
	$(PY) -m thesis_kit.cli claims ledger --write

zoo: $(INSTALLED)  ## train a network of the zoo again, resumable (NAME=… SEED=…; without a name, list them)
	$(PY) -m thesis_kit.cli zoo $(if $(NAME),train "$(NAME)" $(if $(SEED),--seed "$(SEED)") --force --package,list)
	$(if $(NAME),$(PY) -m thesis_kit.cli zoo page --write)

lab: $(LAB)  ## open the chapters in JupyterLab
	$(PY) -m jupyterlab book

$(LAB): $(INSTALLED)
	$(PY) -m pip install --quiet --disable-pip-version-check --constraint requirements.txt jupyterlab
	@touch $@

bench: $(INSTALLED)  ## side-by-side timings: each script of benchmarks/
	@shopt -s nullglob; scripts=(benchmarks/[a-z]*.py); \
	if [ $${#scripts[@]} -eq 0 ]; then echo "There are no benchmarks yet."; fi; \
	for script in "$${scripts[@]}"; do echo "== $$script"; $(THREADS) $(PY) "$$script"; done

clean:  ## remove what was built; .venv stays
	rm -rf _build build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find thesis_kit tests tools book -name __pycache__ -type d -prune -exec rm -rf {} +
