# Everything a newcomer needs: a Python >= 3.11 and make. `make demo` and `make test` set up the rest in .venv, once.

VENV ?= .venv
BIN := $(VENV)/bin
# Later Pythons first, the system's own last; PYTHON=/path/to/python wins over all of them.
PYTHONS := $(if $(PYTHON),$(PYTHON),python3.13 python3.12 python3.11 python3.14 python3 python)
ARGS ?=

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.DEFAULT_GOAL := help
.PHONY: help demo test lint types interop chaos bench clean

help: ## This list
	@echo "usage: make TARGET [ARGS='...']"
	@echo
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.installed ## Health monitoring of this machine and a small simulated fleet, with a dashboard
	@$(BIN)/streamcore demo $(ARGS)

test: $(VENV)/.installed-test ## The tests that need nothing but this package (a few minutes)
	@$(BIN)/python -m pytest -m "not interop and not chaos" $(ARGS)

lint: $(VENV)/.installed-test ## ruff: rules and formatting
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-test ## mypy, strict
	@$(BIN)/mypy

interop: $(VENV)/.installed-test ## Tests against real clients, servers and browsers
	@$(BIN)/python -m pytest -m interop $(ARGS)

chaos: $(VENV)/.installed-test ## Long crash and fault runs, e.g. 100 times kill -9
	@$(BIN)/python -m pytest -m chaos -s $(ARGS)

bench: $(VENV)/.installed-test ## The benchmarks, as ratios to the floor; about five minutes
	@$(BIN)/python -m benchmarks $(ARGS)

clean: ## Removes .venv and caches; data directories stay
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# What is installed depends on pyproject.toml alone, so the stamps are made again when it changes, and only then.
$(VENV)/.installed: pyproject.toml
	@$(call create_venv)
	@$(call install,.[apps])
	@touch $@

$(VENV)/.installed-test: pyproject.toml
	@$(call create_venv)
	@$(call install,.[apps$(comma)test])
	@touch $@ $(VENV)/.installed

comma := ,

# A Python counts when it is new enough and can make an environment: Debian's python3 lacks ensurepip without python3-venv.
define create_venv
if ! $(BIN)/python -m pip --version >/dev/null 2>&1; then \
	found=; without_venv=; \
	for candidate in $(PYTHONS); do \
		"$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 || continue; \
		if "$$candidate" -c 'import venv, ensurepip' >/dev/null 2>&1; then found=$$candidate; break; fi; \
		without_venv=$${without_venv:-$$candidate}; \
	done; \
	if [ -z "$$found" ] && [ -n "$$without_venv" ]; then \
		version=$$("$$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])'); \
		echo "make: $$without_venv (Python $$version) cannot create virtual environments: its venv module is missing." >&2; \
		echo "      On Debian or Ubuntu: apt install python$$version-venv   Then run make again." >&2; \
		exit 1; \
	elif [ -z "$$found" ]; then \
		echo "make: no Python >= 3.11 found (looked for: $(PYTHONS))." >&2; \
		echo "      Install one (https://www.python.org/downloads, or your system's python3), or name it: make PYTHON=/path/to/python3 ..." >&2; \
		exit 1; \
	fi; \
	echo "Creating $(VENV) with $$("$$found" --version) ..."; \
	rm -rf $(VENV); \
	"$$found" -m venv $(VENV) || { echo "make: $$found could not create $(VENV), see above." >&2; exit 1; }; \
fi
endef

define install
echo "Installing $(1) into $(VENV) (once; a minute or two) ..."; \
$(BIN)/python -m pip install --quiet --editable '$(1)' || { \
	echo "make: the installation failed, see above. It needs the Python package index; behind a proxy set https_proxy, then run make again." >&2; \
	exit 1; \
}
endef
