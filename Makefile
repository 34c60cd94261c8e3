# Haechi's commands. ARGS="…" is passed on to the command that a target runs (see `make help`).

# The newest suitable Python that really runs: on some systems a name such as python3.13 is only a stub.
PYTHON ?= $(shell for name in python3.13 python3.12 python3.11 python3; do $$name -c '$(IS_SUITABLE)' 2>/dev/null && echo $$name && break; done)
IS_SUITABLE = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
VENV := .venv
BIN := $(VENV)/bin
HAECHI := $(BIN)/haechi
INSTALLED := $(VENV)/installed
UNTRAINED := --clip-weights random:0 --slowfast-weights random:0

CACHE ?= out/cache
RUN ?= out/run

.DEFAULT_GOAL := help
.PHONY: help install demo features train predict evaluate compare inspect verify validate parity bench test torture lint format clean

help: ## Show this list
	@printf 'Usage: make TARGET [DATA=…] [CACHE=…] [RUN=…] [ARGS="flags of the command"]\n\n'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'
	@printf '\nDefaults: CACHE=%s RUN=%s. All flags: $(HAECHI) COMMAND --help\n' $(CACHE) $(RUN)

install: $(INSTALLED) ## Build the environment in .venv

$(INSTALLED): pyproject.toml constraints.txt
	@$(or $(PYTHON),false) -c '$(IS_SUITABLE)' || { echo 'Python 3.13, 3.12 or 3.11 is needed: install one, or name it as in make PYTHON=/path/to/python3.13 …' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --constraint constraints.txt --editable '.[extract,train,export,bench,dev]'
	touch $@

demo: $(INSTALLED) ## Generate videos and images, extract, train, predict (untrained weights, no network needed)
	rm -rf demo
	$(BIN)/python -m haechi.extract.samples demo/media
	$(HAECHI) extract demo/media --out demo/cache $(UNTRAINED)
	$(HAECHI) inspect demo/cache
	$(HAECHI) train demo/cache --out demo/run --media-root demo/media $(ARGS)
	$(HAECHI) train demo/cache --out demo/image-run --media image --media-root demo/media
	$(HAECHI) predict demo/run --also demo/image-run demo/media/harmful/harmful-00.mp4 demo/media/harmful/harmful-00.jpg
	@printf '\nMedia: demo/media   Cache: demo/cache   Reports: demo/run/report.html, demo/image-run/report.html\n'

features: $(INSTALLED) ## Stage 1: extract the features of DATA (a manifest or a folder) into CACHE
	$(if $(DATA),,$(error DATA is missing: make features DATA=manifest.csv CACHE=$(CACHE)))
	$(HAECHI) extract '$(DATA)' --out '$(CACHE)' $(ARGS)

train: $(INSTALLED) ## Stage 2: train a head on CACHE, write it to RUN
	$(HAECHI) train '$(CACHE)' --out '$(RUN)' $(ARGS)

predict: $(INSTALLED) ## Judge MEDIA="file folder …" with the head in RUN
	$(if $(MEDIA),,$(error MEDIA is missing: make predict RUN=out/run MEDIA="one.mp4 folder"))
	$(HAECHI) predict '$(RUN)' $(MEDIA) $(ARGS)

evaluate: $(INSTALLED) ## Show what the head in RUN is worth on DATA: a cache, a manifest or a folder of other videos
	$(if $(DATA),,$(error DATA is missing: make evaluate RUN=out/run DATA=out/other-cache))
	$(HAECHI) evaluate '$(RUN)' '$(DATA)' $(ARGS)

compare: $(INSTALLED) ## Show the runs RUNS="one two …" side by side
	$(if $(RUNS),,$(error RUNS is missing: make compare RUNS="out/one out/two"))
	$(HAECHI) compare $(RUNS) $(ARGS)

inspect: $(INSTALLED) ## Show what is in CACHE
	$(HAECHI) inspect '$(CACHE)' $(ARGS)

verify: $(INSTALLED) ## Check every byte of CACHE
	$(HAECHI) verify '$(CACHE)' $(ARGS)

validate: $(INSTALLED) ## Check the media of DATA without extracting
	$(if $(DATA),,$(error DATA is missing: make validate DATA=manifest.csv))
	$(HAECHI) validate '$(DATA)' $(ARGS)

parity: $(INSTALLED) ## Compare features with a plain reference implementation (DATA: on your videos)
	$(BIN)/python -m bench.parity $(if $(DATA),--data '$(DATA)') $(ARGS)

bench: $(INSTALLED) ## Measure speed and memory, write the figures to docs/bench and update the tables in docs
	$(BIN)/python -m bench $(if $(DATA),--data '$(DATA)') $(ARGS)

test: $(INSTALLED) ## Run all tests
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

torture: $(INSTALLED) ## Stress test of 25 minutes: kill, damage, fill disks; exit status 1 if anything is lost
	$(BIN)/python -m tests.torture $(ARGS)

lint: $(INSTALLED) ## Check style and types
	$(BIN)/ruff check $(ARGS)
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## Format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the environment and the demo
	rm -rf $(VENV) demo *.egg-info
