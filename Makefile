# The only runner: `make demo` and `make test` set up all they need in .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: help setup demo demo-web test lint typecheck bench soak endurance fuzz docs build clean

# Demo and tests start many processes: what Python has compiled once is kept for the next one, whoever has forbidden that.
unexport PYTHONDONTWRITEBYTECODE

help: ## what there is
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(STAMP) ## install everything into .venv

$(STAMP): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

# The demo needs only a part of it, and comes up sooner.
$(VENV)/.demo: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	test -e $(STAMP) || $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[local,cli,fast,twilio,testing,log]'
	touch $(VENV)/.demo

demo: $(VENV)/.demo ## one whole call: recognised, answered and spoken for real, without any account
	$(BIN)/python -m dialog demo --out build/demo

demo-web: $(VENV)/.demo ## a page to talk to the demo's agents with your microphone, and the console beside it: http://localhost:8080/talk
	$(BIN)/python -m dialog talk --console

# Most tests wait for sockets and share the machine; those that judge time come after them, with a core for each.
test: $(STAMP) ## the whole suite
	$(BIN)/python -m pytest -n 4 --dist worksteal -m "not alone"
	$(BIN)/python -m pytest -n 2 --dist worksteal -m alone

lint: $(STAMP) ## ruff, codespell and the layers of the architecture
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell dialog tests examples benchmarks docs *.md
	$(BIN)/lint-imports

typecheck: $(STAMP) ## mypy and basedpyright, both strict; and the Python of the documentation
	$(BIN)/mypy
	$(BIN)/python docs/typecheck.py
	$(BIN)/basedpyright

bench: $(STAMP) ## the figures of the README, beside a bare bridge's from the same run; QUICK=1 for fewer calls
	$(BIN)/python benchmarks/run.py $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/conversation.py $(if $(QUICK),--quick)
	$(BIN)/python benchmarks/bridge.py --seconds $(if $(QUICK),5,20)
	$(BIN)/python benchmarks/workers.py --seconds $(if $(QUICK),5,20)
	$(BIN)/python benchmarks/survival.py --kills $(if $(QUICK),8,100)
	$(BIN)/python benchmarks/console.py --seconds $(if $(QUICK),5,30)
	$(BIN)/python benchmarks/events.py $(if $(QUICK),--seconds 5 --rounds 2)
	$(BIN)/python benchmarks/call_log.py kills --runs $(if $(QUICK),5,20)
	$(BIN)/python benchmarks/call_log.py outage

soak: $(STAMP) ## ten minutes of calls while workers, NATS and providers die; MINUTES=60 for an hour
	$(BIN)/python tests/soak/soak.py --minutes $(or $(MINUTES),10)

endurance: $(STAMP) ## ten thousand calls at one gateway while lines and providers break: is anything left?
	$(BIN)/python benchmarks/endurance.py

# atheris has an extra of its own: it is large, and made for Linux and macOS only.
fuzz: $(STAMP) ## look for inputs on which a parser fails, ten minutes each; MINUTES=1, PARSERS="sip-message rtp"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[fuzz]'
	$(BIN)/python tests/fuzz/fuzz.py --minutes $(or $(MINUTES),10) $(PARSERS)

docs: $(STAMP) ## the documentation, into build/docs
	$(BIN)/python -m sphinx -W -q -b html docs build/docs

build: $(STAMP) ## wheel and source distribution, into dist
	$(BIN)/python -m build --outdir dist

clean: ## all that was made, the environment too
	rm -rf build dist $(VENV)
