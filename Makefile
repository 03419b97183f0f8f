# Everything is set up on first use: `make demo` and `make test` are the two commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test check format unit integration conformance e2e protocol system-packages clean

demo: $(VENV)/.demo
	$(BIN)/reconciler demo $(ARGS)

test: $(VENV)/.test check
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

unit integration conformance e2e: $(VENV)/.test
	$(BIN)/python -m pytest tests/$@ $(ARGS)

protocol: $(VENV)/.test
	$(BIN)/python -m reconciler.serving.protocol.generate

$(VENV)/.python:
	$(PYTHON) -m venv $(VENV)
	touch $@

$(VENV)/.demo: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@ $(VENV)/.demo

# For the tests of the page, of git over ssh and of signed commits, which are skipped without them (Debian, as root).
system-packages:
	apt-get update --quiet
	apt-get install --yes --no-install-recommends chromium git gnupg openssh-client openssh-server
	mkdir -p /run/sshd

clean:
	rm -rf $(VENV)
