# Everything is set up in .venv, from uv.lock. Start with `make help`.

PYTHON ?= python3
ARGS ?=
EVENTS ?= 1000000
PARTS ?=

# The uv that the dev group pins.
UV := $(shell sed -n 's/.*"\(uv==[0-9.]*\)".*/\1/p' pyproject.toml)
BIN := .venv/bin
# What an environment is made from; a change in any of it brings a new sync.
INPUTS := pyproject.toml uv.lock src/auditplane/__init__.py

# The settings of another environment that is active must not reach this one, nor one by which each of the
# many processes that the tests start would compile all that it imports.
unexport VIRTUAL_ENV PYTHONHOME PYTHONPATH UV_PYTHON PYTHONDONTWRITEBYTECODE
export UV_PROJECT_ENVIRONMENT := $(CURDIR)/.venv
export UV_PYTHON_DOWNLOADS := never

.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test fmt lint types arch unit bench torture soak docs screenshots dist licences audit clean run-env dev-env debian-packages

help:  ## list the targets
	@echo 'usage: make TARGET [PYTHON=python3.12] [ARGS="..."]'
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  \1	\2/p' Makefile

demo: run-env  ## start a server with an invented trail in ./demo-data (ARGS: options of auditplane demo)
	@exec $(BIN)/auditplane demo --data ./demo-data $(ARGS)

test: debian-packages lint types arch unit  ## run every check

fmt: dev-env  ## format the code and mend what can be mended
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lint: dev-env  ## check that uv.lock is current, the format and the lint rules
	@$(BIN)/uv lock --check --quiet
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src

types: dev-env  ## check the types
	$(BIN)/mypy

arch: dev-env  ## check which module imports which
	$(BIN)/lint-imports --no-logo

unit: dev-env  ## run the tests (ARGS: options of pytest)
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

# Its packages are large, and nothing else needs them: they are added to the others here.
bench: dev-env  ## measure this server beside others (EVENTS=10000000 PARTS=export,query)
	@$(BIN)/uv sync --frozen --inexact --quiet --python $(BIN)/python --group bench
	@$(BIN)/python -m bench --events $(EVENTS) $(if $(PARTS),--parts $(PARTS)) $(ARGS)

# So is what makes the site.
docs: dev-env  ## make the documentation as a site, in ./site; a broken link is an error
	@$(BIN)/uv sync --frozen --inexact --quiet --python $(BIN)/python --group docs
	@$(BIN)/python -m docs_site

torture: dev-env debian-packages  ## attack it for hours: power cuts, failing disk, wrong input, kills (ARGS="cuts --cuts 1000")
	@$(BIN)/uv sync --frozen --inexact --quiet --python $(BIN)/python --group torture
	@PYTHONPATH=tests $(BIN)/python -m torture $(ARGS)

soak: dev-env  ## load it for an hour in all ways at once (ARGS="--minutes 3")
	@PYTHONPATH=tests $(BIN)/python -m torture.soak $(ARGS)

screenshots: dev-env  ## make the pictures of the page in docs/pictures anew
	@$(BIN)/python scripts/screenshots

dist: dev-env  ## build the sdist and the wheel, with a bill of materials and the locked requirements
	@$(BIN)/python -m supply sbom auditplane.cdx.json
	$(BIN)/python -m build --no-isolation
	@name="dist/auditplane-$$($(BIN)/auditplane version | cut -d' ' -f2)" && \
	    $(BIN)/python -m supply requirements "$$name.requirements.txt" && \
	    mv auditplane.cdx.json "$$name.cdx.json"

licences: dev-env  ## write docs/licences.md, after a change of uv.lock
	@$(BIN)/python -m supply licences

# What asks is added here, as nothing else needs it.
audit: dev-env  ## ask for known vulnerabilities; exit status 2 when nobody could be asked (ARGS="--service osv")
	@$(BIN)/uv sync --frozen --inexact --quiet --python $(BIN)/python --group audit
	@$(BIN)/python -m supply audit $(ARGS)

clean:  ## remove what make and the tools made, but for demo-data
	rm -rf .venv auditplane.cdx.json dist site .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find src tests docs_site supply -name __pycache__ -type d -prune -exec rm -rf {} +

debian-packages:
	@scripts/debian-packages

# Enough to run the server. It never removes what the tests need.
run-env:
	@$(call sync,run dev,run,--no-default-groups --group build --inexact)

# Enough for every check.
dev-env:
	@$(call sync,dev,dev,)

# $(call sync,STAMPS,STAMP,OPTIONS) makes .venv fit uv.lock and writes STAMP,
# unless one of STAMPS says that it does already.
#
# .venv/ready is there only between a sync that ended well and the next one. It
# says where and with which uv the environment was made. Where it is missing or
# wrong (a set-up that was broken off, a folder that was moved, a Python that
# is gone, another PYTHON asked for), the environment is made anew.
define sync
set -e; \
version() { "$$1" -c 'import sys; print(sys.version_info[:2])' 2>/dev/null; }; \
wanted() { $(if $(filter file default,$(origin PYTHON)),:,[ "$$(version '$(PYTHON)')" = "$$(version $(BIN)/python)" ]); }; \
ready='$(CURDIR) $(UV)'; \
stamp="$$(cat $(INPUTS) | cksum)"; \
if [ "$$(cat .venv/ready 2>/dev/null)" = "$$ready" ] && version $(BIN)/python >/dev/null && wanted; then \
    for name in $(1); do \
        if [ "$$(cat .venv/$$name-stamp 2>/dev/null)" = "$$stamp" ]; then exit 0; fi; \
    done; \
else \
    if ! '$(PYTHON)' -c '' 2>/dev/null; then \
        echo 'There is no $(PYTHON) here. Auditplane needs Python 3.11 or newer;' >&2; \
        echo 'name one with: make PYTHON=/path/to/python3 $(MAKECMDGOALS)' >&2; \
        exit 1; \
    fi; \
    if ! '$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
        echo "Auditplane needs Python 3.11 or newer; $(PYTHON) is $$('$(PYTHON)' -V 2>&1)." >&2; \
        echo 'Name a newer one with: make PYTHON=python3.12 $(MAKECMDGOALS)' >&2; \
        exit 1; \
    fi; \
    echo "Making .venv with $$('$(PYTHON)' -V) and $(UV)"; \
    rm -rf .venv; \
    '$(PYTHON)' -m venv .venv; \
    scripts/pinned-uv >.venv/uv.txt; \
    $(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r .venv/uv.txt; \
fi; \
rm -f .venv/ready; \
$(BIN)/uv sync --frozen --python $(BIN)/python $(3) $$([ -t 2 ] || echo --quiet); \
echo "$$stamp" >.venv/$(2)-stamp; \
echo "$$ready" >.venv/ready
endef
