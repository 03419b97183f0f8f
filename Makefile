# Everything is set up on first use: `make demo` and `make test` are the two commands.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PEERS := .venv-peers

.PHONY: demo test check format unit integration conformance e2e swarm protocol system-packages docker-packages \
  chaos fuzz bench clean

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

unit integration conformance e2e swarm: $(VENV)/.test
	$(BIN)/python -m pytest tests/$@ $(ARGS)

# For as long as one likes; what breaks says how to repeat it (docs/reliability.md).
SEED ?= 1
ROUNDS ?= 40
SECONDS ?= 600
chaos: $(VENV)/.test
	$(BIN)/python -m tests.chaos --seed $(SEED) --rounds $(ROUNDS) $(ARGS)

fuzz: $(VENV)/.test
	$(BIN)/python -m tests.fuzz --seed $(SEED) --seconds $(SECONDS) $(ARGS)

# All figures of docs/performance.md, in some 40 minutes of a machine that does nothing else.
bench: $(VENV)/.test $(PEERS)/.installed
	$(BIN)/python -m bench $(ARGS)

# Whom the agent is measured against: their pins exclude ours, so they have a virtualenv of their own.
$(PEERS)/.installed: bench/sync/peers.txt
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/python -m pip install --quiet --requirement $<
	touch $@

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

# For the tests of the page, of git over ssh, of signed commits, of ingress and of the alert rules, which are skipped
# without them (Debian, as root). nginx, haproxy and prometheus (for promtool) are wanted as commands: a policy of its
# own keeps Debian from starting them as services.
POLICY := /usr/sbin/policy-rc.d
define install
	apt-get update --quiet
	if [ ! -e $(POLICY) ]; then \
	  trap 'rm -f $(POLICY)' EXIT; printf '#!/bin/sh\nexit 101\n' >$(POLICY); chmod +x $(POLICY); \
	fi; \
	apt-get install --yes --no-install-recommends
endef
system-packages:
	$(install) \
	  chromium git gnupg haproxy nginx openssh-client openssh-server prometheus
	mkdir -p /run/sshd

# For tests/swarm, which starts engines of its own and is skipped without them (Debian, as root).
docker-packages:
	$(install) debootstrap docker.io iproute2 iptables openssh-server util-linux
	mkdir -p /run/sshd

clean:
	rm -rf $(VENV) $(PEERS)
