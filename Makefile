# make quickstart    a virtual environment in .venv, and water that teaches itself (minutes)
# make test          the default tests
# make slow          the tests that take minutes
# make engines       the tests of reference engines, Parsl, LAMMPS, i-PI (installed); needs mopac
# make browser       the tests of the monitor's page; needs chromium
# make docs          the site, in site/, and every example on its pages
# make lint          ruff and pyright
PYTHON ?= python3
VENV   ?= .venv
RUN    := $(VENV)/bin

.PHONY: quickstart test slow engines browser docs lint clean

quickstart: $(VENV)/.installed
	$(RUN)/alj run configs/quickstart.yaml

test: $(VENV)/.tested
	$(RUN)/python -m pytest -n 2

slow: $(VENV)/.slow
	$(RUN)/python -m pytest -n 2 --dist loadfile -m 'slow and not engine'

engines: $(VENV)/.engines
	@command -v mopac >/dev/null || { echo "mopac is missing; run: apt-get install mopac"; exit 2; }
	$(RUN)/python -m pytest -n 2 --dist loadfile -m engine

browser: $(VENV)/.browser
	@command -v chromium >/dev/null || command -v chromium-browser >/dev/null || \
	  { echo "chromium is missing; run: apt-get install chromium"; exit 2; }
	$(RUN)/python -m pytest -m browser

docs: $(VENV)/.documented
	$(RUN)/sphinx-build --quiet --fail-on-warning docs site
	$(RUN)/python -m pytest -n 2 -m docs tests/documentation

lint: $(VENV)/.tested
	$(RUN)/ruff check .
	$(RUN)/ruff format --check .
	$(RUN)/pyright

# ensurepip is a package of its own on Debian and Ubuntu: say so instead of failing half-way.
$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "alj needs Python 3.11 or newer, found: $$($(PYTHON) --version); use make PYTHON=/path/to/python3"; exit 2; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || \
	  { echo "the venv module is incomplete (no ensurepip); run: apt-get install python3-venv"; exit 2; }
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.tested: $(VENV)/.installed
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test]'
	@touch $@

$(VENV)/.slow: $(VENV)/.tested
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[maps]'
	@touch $@

$(VENV)/.engines: $(VENV)/.tested
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,engines,parsl,outside]'
	@touch $@

$(VENV)/.documented: $(VENV)/.engines
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

$(VENV)/.browser: $(VENV)/.tested
	$(RUN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[test,browser]'
	@touch $@

clean:
	rm -rf $(VENV) build site *.egg-info
