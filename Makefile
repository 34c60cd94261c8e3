# Haechi's commands. Each takes ARGS="…" for the flags of the command under it (see `make help`).

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HAECHI := $(BIN)/haechi
INSTALLED := $(VENV)/installed
UNTRAINED := --clip-weights random:0 --slowfast-weights random:0

CACHE ?= out/cache
RUN ?= out/run

.DEFAULT_GOAL := help
.PHONY: help install demo features train predict compare inspect verify validate parity bench test torture lint format clean

help: ## Show this list
	@printf 'Usage: make TARGET [DATA=…] [CACHE=…] [RUN=…] [ARGS="flags of the command"]\n\n'
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-12s %s\n", $$1, $$2}'
	@printf '\nDefaults: CACHE=%s RUN=%s. The flags: $(HAECHI) COMMAND --help\n' $(CACHE) $(RUN)

install: $(INSTALLED) ## Build the environment in .venv

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed; say make PYTHON=python3.12 …")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[extract,train,export,bench,dev]'
	touch $@

demo: $(INSTALLED) ## From nothing to trained heads on generated videos and images, without a network (untrained weights)
	rm -rf demo
	$(BIN)/python -m haechi.extract.samples demo/media
	$(HAECHI) extract demo/media --out demo/cache $(UNTRAINED)
	$(HAECHI) inspect demo/cache
	$(HAECHI) train demo/cache --out demo/run --media-root demo/media $(ARGS)
	$(HAECHI) train demo/cache --out demo/image-run --media image --media-root demo/media
	$(HAECHI) predict demo/run --also demo/image-run demo/media/harmful/harmful-00.mp4 demo/media/harmful/harmful-00.jpg
	@printf '\nThe media: demo/media   The cache: demo/cache   The pages to read: demo/run/report.html, demo/image-run/report.html\n'

features: $(INSTALLED) ## Stage 1: extract DATA (a manifest or a folder) to CACHE
	$(if $(DATA),,$(error say which videos: make features DATA=manifest.csv CACHE=$(CACHE)))
	$(HAECHI) extract '$(DATA)' --out '$(CACHE)' $(ARGS)

train: $(INSTALLED) ## Stage 2: train a head on CACHE, leave it in RUN
	$(HAECHI) train '$(CACHE)' --out '$(RUN)' $(ARGS)

predict: $(INSTALLED) ## Judge MEDIA="file folder …" with the head in RUN
	$(if $(MEDIA),,$(error say what to judge: make predict RUN=out/run MEDIA="one.mp4 folder"))
	$(HAECHI) predict '$(RUN)' $(MEDIA) $(ARGS)

compare: $(INSTALLED) ## Show the runs RUNS="one two …" side by side
	$(if $(RUNS),,$(error say which runs: make compare RUNS="out/one out/two"))
	$(HAECHI) compare $(RUNS) $(ARGS)

inspect: $(INSTALLED) ## Show what CACHE holds
	$(HAECHI) inspect '$(CACHE)' $(ARGS)

verify: $(INSTALLED) ## Check every byte of CACHE
	$(HAECHI) verify '$(CACHE)' $(ARGS)

validate: $(INSTALLED) ## Check the videos of DATA without extracting
	$(if $(DATA),,$(error say which videos: make validate DATA=manifest.csv))
	$(HAECHI) validate '$(DATA)' $(ARGS)

parity: $(INSTALLED) ## Compare features with a plain reference (DATA: your videos instead of generated ones)
	$(BIN)/python -m bench.parity $(if $(DATA),--data '$(DATA)') $(ARGS)

bench: $(INSTALLED) ## Measure everything that README says of speed, write it to docs/bench, renew README's tables
	$(BIN)/python -m bench $(if $(DATA),--data '$(DATA)') $(ARGS)

test: $(INSTALLED) ## Run the whole suite
	$(BIN)/python -m pytest --numprocesses 2 --dist loadfile $(ARGS)

torture: $(INSTALLED) ## Try to lose a video or to let damage in, for a quarter of an hour; exit with 1 if anything is lost
	$(BIN)/python -m tests.torture $(ARGS)

lint: $(INSTALLED) ## Check style and types
	$(BIN)/ruff check $(ARGS)
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED) ## Bring the code into the house style
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean: ## Remove the environment and the demo
	rm -rf $(VENV) demo *.egg-info
