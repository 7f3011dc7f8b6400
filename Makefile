# Each target does its own set-up; where there is nothing, Python 3.11+ and make are enough.
VENV   := .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

# PYTHON=... names the Python to work with, and the environment is made anew if it was made with another one. Not named,
# scripts/python.sh looks for a fast one when the environment is made.
ifdef PYTHON
WHICH := -c 'import sys; print(sys.base_prefix, sys.version)'
ifneq ($(shell $(PYTHON) $(WHICH) 2>&1),$(shell $(BIN)/python $(WHICH) 2>&1))
$(shell rm -f $(READY))
endif
else
PYTHON = $(shell sh scripts/python.sh)
endif

# Programs that are no Python packages: installed by the targets that use them where that is allowed (scripts/apt.sh).
DEMO_PROGRAMS := redis-server
TEST_PROGRAMS := postgres redis-server
FULL_PROGRAMS := haproxy nginx wrk mariadbd

.DEFAULT_GOAL := help
.PHONY: help demo test test-full test-compiled mutants check fix bench show docs lock clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

$(READY): requirements.lock pyproject.toml scripts/venv.sh
	@sh scripts/venv.sh $(PYTHON) $(VENV)
	@touch $@

demo: $(READY)  ## a strategy on real processes: http://127.0.0.1:8080 (ARGS="--strategy primary-backup")
	@case '$(ARGS)' in *store*) sh scripts/apt.sh $(DEMO_PROGRAMS) || true ;; esac
	@$(BIN)/sessile demo $(ARGS)

test: $(READY)  ## everything a change must pass: checks and tests
	@sh scripts/apt.sh $(TEST_PROGRAMS) || true
	@$(BIN)/python scripts/test.py $(ARGS)

test-full: $(READY)  ## the slow tests too: browser, gigabytes, long fuzzing
	@sh scripts/apt.sh $(TEST_PROGRAMS) $(FULL_PROGRAMS) || true
	@$(BIN)/python scripts/test.py --full $(ARGS)

test-compiled: $(READY)  ## the balancer's tests against the compiled balancer
	@package=$$($(BIN)/python -m bench.environments) && \
		PYTHONPATH=$$package $(BIN)/python -m pytest tests/balancer $(ARGS)

mutants: $(READY)  ## small faults that the tests must notice (ARGS="--minutes 5 --only record"); 20 minutes
	@sh scripts/apt.sh $(DEMO_PROGRAMS) || true
	@$(BIN)/python -m bench.mutants $(ARGS)

check: $(READY)  ## format, lint, types
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

fix: $(READY)  ## format, and lint what can be mended by machine
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## every figure beside a peer's
	@$(BIN)/python -m bench $(ARGS)

show: $(READY)  ## what is promised, shown: make show NAME=memory (no NAME: the list)
	@$(BIN)/python -m bench.show $(NAME) $(ARGS)

docs: $(READY)  ## rewrite the generated parts of the documentation
	@$(BIN)/python scripts/docs.py $(ARGS)

lock: $(READY)  ## pin the newest allowed versions of everything
	@sh scripts/lock.sh $(BIN)

clean:  ## remove the environment and caches
	rm -rf $(VENV) .cache .mypy_cache .pytest_cache .ruff_cache
