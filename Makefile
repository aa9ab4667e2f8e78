# Everything that can be done with a checkout. `make run` and `make test` need Python and a C compiler.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard fibcore/*.pyx fibcore/*.h) \
	$(foreach each,fibcore/idempotency_key web/http/answers web/http/heads web/http/parser,$(each).py $(each).pxd)

PACKAGED := pyproject.toml setup.py README.md LICENSE requirements fibcore web supervise \
	supervisord.conf fibcore.conf deploy/debian
DEB := dist/fibcore_$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml 2>/dev/null)_$(shell dpkg --print-architecture 2>/dev/null).deb
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),sudo)

# Without bytecode files, test processes would spend most of their time compiling modules.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run run-shared stores restart check test coverage simulate test-faults test-install test-deb test-pythons test-sanitizers vm-test lint bench locust deb install uninstall format lock clean

help:  ## list these targets
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 24

run: $(VENV)/.run  ## build, install into .venv, and serve in the foreground, with the settings of fibcore.conf
	@exec $(BIN)/python -m supervise.run

run-shared: $(VENV)/.stores  ## serve a demo: nginx in front of two nodes on one store (STORE=postgresql, redis or etcd)
	@exec deploy/shared-store/nodes.sh run "$(STORE)"

stores: $(VENV)/.stores  ## install the drivers of PostgreSQL and Redis as well

restart: $(VENV)/.run  ## restart what make run started, with the installed version; no connection is refused
	@$(BIN)/python -m supervise.restart

check: $(VENV)/.test  ## run the tests that start no process: seconds (T=tests/core/test_digits.py: one file)
	$(BIN)/pytest --quiet -m "not processes and not root" $(if $(T),,-n auto) $(PYTEST_ARGS) $(T)

# Each process starts with neighbouring tests, so that most shared fixtures start once.
TESTS = -m pytest $(if $(T),,-n auto --dist worksteal) $(PYTEST_ARGS) $(T)
test: $(VENV)/.test  ## run all tests that this machine and user can run (T=: one file)
	$(BIN)/python $(TESTS)

# Every process writes its coverage to a folder of this run. This takes 1.5 times as long.
coverage: $(VENV)/.test build/coverage/fibcore/_sequence.so  ## make test, and report the lines that it runs
	@folder=$$(mktemp -d build/coverage/run-XXXXXX) && trap 'rm -rf $$folder' EXIT INT TERM; \
	export COVERAGE_FILE=$(CURDIR)/$$folder/data; status=0; \
	$(BIN)/coverage run $(TESTS) || status=$$?; \
	echo "Running the tests of the compiled modules again, with their lines traced:"; \
	PYTHONPATH=build/coverage HYPOTHESIS_PROFILE=traced $(BIN)/coverage run --source=fibcore,web \
		$(BIN)/pytest --quiet --import-mode=append $(TRACED) || status=$$?; \
	find $$folder -empty -delete; $(BIN)/coverage combine --quiet && $(BIN)/coverage report; \
	exit $$status

# Separate from the usual build: the core with its lines traced, its C file where the report expects
# it, and only the Python of web/.
TRACED = $(wildcard tests/core/test_sequence.py tests/core/test_idempotency_key.py)
build/coverage/fibcore/_sequence.so: $(SOURCES) | $(VENV)/.test
	@mkdir -p $(@D) build/coverage/web/http
	@ln -sfn $(CURDIR)/fibcore/*.py $(CURDIR)/fibcore/appliance $(CURDIR)/fibcore/client \
		$(CURDIR)/fibcore/command \
		$(CURDIR)/fibcore/numbers $(CURDIR)/fibcore/stores $(@D)
	@ln -sfn $(CURDIR)/web/*.py $(CURDIR)/web/endpoints build/coverage/web
	@ln -sfn $(CURDIR)/web/http/*.py build/coverage/web/http
	$(BIN)/cython -X linetrace=True fibcore/_sequence.pyx -o fibcore/_sequence.c
	$(CC) -shared -fPIC -DCYTHON_TRACE_NOGIL=1 -o $@ fibcore/_sequence.c \
		-I$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("include"))')

# A seed that fails is printed with the command that replays it.
SEEDS ?= 10000
simulate: $(VENV)/.test  ## try new seeds of the simulation (SEEDS=100000; SIMULATE_ARGS="--seconds 120")
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(SIMULATE_ARGS)

# Two at a time, since they mostly wait.
test-faults: $(VENV)/.test  ## run the tests that take long (root; FAULTS_SECONDS=600: duration of the random faults)
	@export FAULTS_SECONDS=$${FAULTS_SECONDS:-600} HYPOTHESIS_PROFILE=thorough; status=0; \
	$(BIN)/pytest tests/faults -n 2 --dist worksteal $(PYTEST_ARGS) || status=1; \
	$(BIN)/pytest --ignore tests/faults -m "long or hypothesis" -n auto --dist worksteal \
		$(PYTEST_ARGS) || status=1; \
	exit $$status

test-install: $(VENV)/.test  ## build the sdist and the wheel, and try the wheel in an empty environment: 1 min
	INSTALL=1 $(BIN)/pytest tests/install/test_install.py

test-pythons: $(VENV)/.test  ## the same on each installed Python from 3.11 on: 2 min each
	INSTALL=1 $(BIN)/pytest tests/install/test_pythons.py

test-deb: $(DEB) $(VENV)/.test  ## install, upgrade and remove the package in a booted Debian (root, 3 min)
	PACKAGE=$(DEB) $(BIN)/pytest tests/install/test_package.py $(PYTEST_ARGS)

test-sanitizers: $(VENV)/.test  ## test the core under the compiler's sanitizers: 1 min
	SANITIZERS=1 $(BIN)/pytest tests/sanitizers

vm-test: $(VENV)/.bench  ## vagrant up under software emulation, and tests in the VM (root, 10 min)
	tests/vm/run $(VM_TEST_ARGS)

lint: $(VENV)/.lint  ## run ruff, mypy, stubtest, cython-lint and import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fibcore web
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml fibcore._sequence

bench: $(VENV)/.test  ## measure fibcore, its server on one core: 5 min (BENCH_ARGS="next --beside ../other-checkout")
	@$(BIN)/python -m bench $(BENCH_ARGS)

locust: $(VENV)/.bench  ## run the reference load, checking every value (LOCUST_URL=...: against that server)
	$(BIN)/python -m bench --locust $(LOCUST_URL)

deb: $(DEB)  ## build a package for this release of Debian, in dist/

# Here and below, a target has the time at which its build began: a source edited meanwhile is newer.

$(DEB): $(shell find $(PACKAGED) -type f ! -name '*.so' ! -name '*.c' ! -name '*.pyc' 2>/dev/null)
	@mkdir -p $(@D) && touch $@.began
	deploy/debian/build $@
	@touch -r $@.began $@ && rm $@.began

# Also if this version is already installed, since the build may differ. Changed settings are kept.
install: $(DEB)  ## build and install the package: a service that starts at boot, or an upgrade while it serves
	$(AS_ROOT) apt-get --quiet --yes --reinstall --allow-downgrades -o Dpkg::Options::=--force-confold install ./$(DEB)

uninstall:  ## remove the package; the database and the settings stay
	$(AS_ROOT) apt-get --quiet --yes remove fibcore

format: $(VENV)/.lint  ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock:  ## renew the locked versions in requirements/ (needs uv)
	$(LOCK) --upgrade --extra build --extra test pyproject.toml -o requirements/test.txt
	$(LOCK) --extra build -c requirements/test.txt pyproject.toml -o requirements/run.txt
	$(LOCK) --extra build --extra postgresql --extra redis -c requirements/test.txt pyproject.toml -o requirements/stores.txt

clean:  ## remove what was built; var/ stays. Changes nothing while make run runs here
	@! $(BIN)/python -c 'import pathlib, sys; from supervise.control import supervisord_of; \
		sys.exit(supervisord_of(pathlib.Path.cwd()) is None)' 2>/dev/null || { echo "make run runs here, \
	from $(VENV). Nothing has been removed. Stop it first: $(BIN)/supervisorctl shutdown" >&2; exit 1; }
	rm -rf $(VENV) build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f fibcore/*.so fibcore/_sequence.c web/http/*.so

# Each set of packages is installed once, and again when its list or a compiled source has changed.
$(VENV)/.%: requirements/%.txt $(SOURCES) | $(BIN)/pip
	@touch $@.began
	@echo "Installing the packages of $< into $(VENV); the first time takes half a minute ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@echo "Compiling fibcore ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@mv $@.began $@

# Tools that nothing of ours imports: in bounded versions, beside the locked packages of the tests.
$(VENV)/.lint $(VENV)/.bench: $(VENV)/.%: pyproject.toml | $(VENV)/.test
	@echo "Installing the tools of make $* ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-build-isolation --editable ".[$*]"
	@touch $@

# pip is the last file of an environment: one that is not finished has none, and is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or later is missing. On Debian: apt-get install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { \
		echo "A C compiler is missing. On Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	@test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { \
		echo "Python's headers are missing. On Debian: apt-get install python3-dev" >&2; exit 1; }
	@echo "Making $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }
