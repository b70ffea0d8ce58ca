# The commands of the repository. Each sets up `.venv` by itself; nothing but Python 3.11, pip, make and git is needed.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/installed

.PHONY: setup demo test test-full check format docs golden clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/brushwork demo --out runs/demo

# Two processes with a thread each: more threads than cores wait for one another.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

test-full: $(STAMP)
	$(BIN)/python -m pip install --quiet --no-deps sd-mecha==1.1.8 refiners==0.4.0 jaxtyping wadler-lindig
	$(BIN)/python -m pytest -m full

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/python -m brushwork.config.document > docs/settings.md

golden: $(STAMP)
	BRUSHWORK_WRITE_GOLDEN=1 $(BIN)/python -m pytest tests/golden

clean:
	rm -rf $(VENV) build dist src/*.egg-info
