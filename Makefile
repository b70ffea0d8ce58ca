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
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal

# Other people's programs, to load our files with: refiners (without its dependencies, which would replace torch), and
# stable-diffusion.cpp, which takes seven minutes and a C++ compiler unless SD_CLI names a built one.
SD_CPP := $(VENV)/stable_diffusion_cpp_python-0.4.7
SD_CLI ?= $(CURDIR)/$(SD_CPP)/build/bin/sd-cli

test-full: $(STAMP) $(SD_CLI)
	$(BIN)/python -m pip install --quiet --no-deps sd-mecha==1.1.8 refiners==0.4.0 jaxtyping==0.3.11 wadler-lindig==0.1.8 triton==3.9.0
	SD_CLI=$(SD_CLI) $(BIN)/python -m pytest -m full

$(CURDIR)/$(SD_CPP)/build/bin/sd-cli: | $(STAMP)
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/python -m pip download --quiet --no-deps --no-binary stable-diffusion-cpp-python \
		--dest $(VENV) stable-diffusion-cpp-python==0.4.7
	tar xf $(SD_CPP).tar.gz -C $(VENV)
	PATH=$(CURDIR)/$(BIN):$$PATH cmake -S $(SD_CPP)/vendor/stable-diffusion.cpp -B $(SD_CPP)/build -G Ninja \
		-DCMAKE_BUILD_TYPE=Release -DSD_BUILD_EXAMPLES=ON
	PATH=$(CURDIR)/$(BIN):$$PATH ninja -C $(SD_CPP)/build sd-cli

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(STAMP)
	$(BIN)/python -m brushwork.config.document > docs/settings.md
	$(BIN)/python -m brushwork.config.kohya.document docs/coming-from.md

golden: $(STAMP)
	BRUSHWORK_WRITE_GOLDEN=1 $(BIN)/python -m pytest tests/golden

clean:
	rm -rf $(VENV) build dist src/*.egg-info
