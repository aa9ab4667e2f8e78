# What can be done with a checkout. `make run` and `make test` need Python, a C compiler and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := pyproject.toml setup.py $(wildcard fibcore/*.pyx fibcore/*.h) \
	web/http/answers.py web/http/answers.pxd web/http/heads.py web/http/heads.pxd \
	web/http/parser.py web/http/parser.pxd

PACKAGED := pyproject.toml setup.py README.md LICENSE requirements fibcore web supervise \
	supervisord.conf fibcore.conf deploy/debian
DEB := dist/fibcore_$(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml 2>/dev/null)_$(shell dpkg --print-architecture 2>/dev/null).deb
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),sudo)

# To compile each module anew takes a process of the tests longer than all else that it does.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help run run-shared stores restart check test coverage simulate test-faults test-install test-deb test-pythons test-sanitizers vm-test proofs mutants lint bench heads locust pictures deb install uninstall format lock clean

help:  ## say what there is to make
	@sed -n 's/^\([a-z-]*\):.*## /make \1	/p' Makefile | expand -t 24

run: $(VENV)/.run  ## build, install into .venv, and serve in the foreground, as fibcore.conf says
	@exec $(BIN)/python -m supervise.run

run-shared: $(VENV)/.stores  ## nginx before two nodes on one store, to try (STORE=postgresql, redis or etcd)
	@exec deploy/shared-store/nodes.sh run "$(STORE)"

stores: $(VENV)/.stores  ## install the drivers of PostgreSQL and Redis, too

restart: $(VENV)/.run  ## what make run started, anew, with what is installed now; no request fails
	@$(BIN)/python -m supervise.restart

check: $(VENV)/.test  ## the tests that start no process, in seconds (T=tests/stepping/test_stepper.py: those of one file)
	$(BIN)/pytest --quiet -m "not processes and not root" $(if $(T),,-n auto) $(PYTEST_ARGS) $(T)

# Each process begins with tests that stand together, so that what they share is mostly started once.
TESTS = -m pytest $(if $(T),,-n auto --dist worksteal) $(PYTEST_ARGS) $(T)
test: $(VENV)/.test  ## the tests (as root: all; T=: of one file)
	$(BIN)/python $(TESTS)

# Coverage is gathered in a folder of this run, from each process that ends. It takes half as long again.
coverage: $(VENV)/.test build/coverage/fibcore/_sequence.so  ## make test, and which lines it runs
	@folder=$$(mktemp -d build/coverage/run-XXXXXX) && trap 'rm -rf $$folder' EXIT INT TERM; \
	export COVERAGE_FILE=$(CURDIR)/$$folder/data; status=0; \
	$(BIN)/coverage run $(TESTS) || status=$$?; \
	echo "The tests of what is compiled once more, so that its lines are traced:"; \
	PYTHONPATH=build/coverage HYPOTHESIS_PROFILE=traced $(BIN)/coverage run --source=fibcore,web \
		$(BIN)/pytest --quiet --import-mode=append $(TRACED) || status=$$?; \
	find $$folder -empty -delete; $(BIN)/coverage combine --quiet && $(BIN)/coverage report; \
	exit $$status

# Apart from the usual build, which all else runs: the core with its lines traced, its C file where
# the report looks for it, and of web/ just the Python.
TRACED = tests/core/test_sequence.py tests/http/test_answers.py tests/http/test_known_heads.py tests/http/test_parser.py tests/http/test_heads.py
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

# One that fails is printed with the command that replays it.
SEEDS ?= 10000
simulate: $(VENV)/.test  ## try fresh seeds of the simulation (SEEDS=100000; SIMULATE_ARGS="--seconds 180")
	@$(BIN)/python -m tests.simulation --seeds $(SEEDS) $(SIMULATE_ARGS)

# Two at a time, as most of it is waiting. 5: none was chosen, as when what has failed is tried again.
test-faults: $(VENV)/.test  ## all that takes long (root; FAULTS_SECONDS=600: how long faults are tried)
	@export FAULTS_SECONDS=$${FAULTS_SECONDS:-600} HYPOTHESIS_PROFILE=thorough; status=0; \
	$(BIN)/pytest tests/faults -n 2 --dist worksteal $(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	$(BIN)/pytest --ignore tests/faults -m "long or hypothesis" -n auto --dist worksteal \
		$(PYTEST_ARGS) || [ $$? = 5 ] || status=1; \
	$(MAKE) --no-print-directory simulate SEEDS=20000 || status=1; \
	exit $$status

test-install: $(VENV)/.test  ## build the sdist and the wheel, and try that in an empty environment, a minute
	INSTALL=1 $(BIN)/pytest tests/install/test_install.py

test-pythons: $(VENV)/.test  ## the same on each Python from 3.11 on that this machine has, two minutes each
	INSTALL=1 $(BIN)/pytest tests/install/test_pythons.py

test-deb: $(DEB) $(VENV)/.test  ## install the package, upgrade it, remove it in a Debian that boots (root, 3 minutes)
	PACKAGE=$(DEB) $(BIN)/pytest tests/install/test_package.py $(PYTEST_ARGS)

test-sanitizers: $(VENV)/.test  ## the core under the compiler's sanitizers, a minute
	SANITIZERS=1 $(BIN)/pytest tests/sanitizers

vm-test: $(VENV)/.bench  ## vagrant up, for real, under software emulation; tests in the VM (root, 10 min)
	tests/vm/run $(VM_TEST_ARGS)

proofs: $(VENV)/.test  ## write docs/proofs.md, from the marks on the tests
	$(BIN)/python -m tests.docs.proofs

mutants: $(VENV)/.mutants  ## change the code in one place at a time: a test must fail (MUTANTS_ARGS="stepper")
	$(BIN)/python -m tests.mutants $(MUTANTS_ARGS)

lint: $(VENV)/.lint  ## ruff, mypy, stubtest, cython-lint, import-linter
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PATH="$(CURDIR)/$(BIN):$$PATH" cython-lint fibcore web
	$(BIN)/lint-imports --no-cache --no-logo
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --mypy-config-file pyproject.toml fibcore._sequence

bench: $(VENV)/.bench  ## measure beside the peers, each in 1 CPU and 512 MB, 45 minutes (BENCH_ARGS=--quick)
	$(BIN)/python -m bench $(BENCH_ARGS)

heads: $(VENV)/.bench  ## record again what real clients send (curl, node, a JDK, chromium, nginx, ...)
	$(BIN)/python -m bench.heads.record

locust: $(VENV)/.bench  ## the reference load, every value checked (LOCUST_URL=...: against that server)
	$(BIN)/python -m bench --only locust $(if $(LOCUST_URL),--url $(LOCUST_URL))

pictures: $(VENV)/.bench  ## make the README's pictures again: the page, and what make bench plotted
	$(BIN)/python -m bench.report.pictures

deb: $(DEB)  ## build a package for this release of Debian, in dist/

$(DEB): $(shell find $(PACKAGED) -type f ! -name '*.so' ! -name '*.c' ! -name '*.pyc' 2>/dev/null)
	deploy/debian/build $@

# Again where it is installed already, as what was built may differ. Settings that were changed stay.
install: $(DEB)  ## build the package and install it: a service from boot on, or an upgrade while it serves
	$(AS_ROOT) apt-get --quiet --yes --reinstall --allow-downgrades -o Dpkg::Options::=--force-confold install ./$(DEB)

uninstall:  ## remove the package; the database and the settings stay
	$(AS_ROOT) apt-get --quiet --yes remove fibcore

format: $(VENV)/.lint  ## put the code into its form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

LOCK = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --custom-compile-command 'make lock'
lock:  ## renew the locked versions in requirements/ (needs uv)
	$(LOCK) --upgrade --extra build --extra test --extra plots --extra bench pyproject.toml -o requirements/bench.txt
	$(LOCK) --extra build --extra test -c requirements/bench.txt pyproject.toml -o requirements/test.txt
	$(LOCK) --extra build -c requirements/bench.txt pyproject.toml -o requirements/run.txt
	$(LOCK) --upgrade --extra build --extra test --extra plots --extra lint -c requirements/bench.txt pyproject.toml -o requirements/lint.txt
	$(LOCK) --extra build --extra postgresql --extra redis -c requirements/bench.txt pyproject.toml -o requirements/stores.txt
	$(LOCK) --upgrade --extra build --extra test --extra mutants -c requirements/bench.txt pyproject.toml -o requirements/mutants.txt

clean:  ## remove what was built; var/ stays, and so does all if make run runs
	@! $(BIN)/supervisorctl -c supervisord.conf pid >/dev/null 2>&1 || { echo "make run runs here, \
	from $(VENV). Nothing has been removed. End it first: $(BIN)/supervisorctl shutdown" >&2; exit 1; }
	rm -rf $(VENV) build *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f fibcore/*.so fibcore/_sequence.c web/http/*.so

# Each set of packages is installed once, and again when its list or the extension has changed.
$(VENV)/.%: requirements/%.txt $(SOURCES) | $(BIN)/python
	@echo "Installing the packages of $< into $(VENV); the first time takes half a minute ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@echo "Compiling fibcore ..." >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
		--no-build-isolation --editable .
	@touch $@

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		echo "Python 3.11 or later is missing. On Debian: apt-get install python3 python3-venv python3-dev" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || { \
		echo "Python's venv module is missing. On Debian: apt-get install python3-venv" >&2; exit 1; }
	@command -v $${CC:-cc} >/dev/null || { \
		echo "A C compiler is missing. On Debian: apt-get install gcc libc6-dev" >&2; exit 1; }
	@test -e "$$($(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" || { \
		echo "Python's headers are missing. On Debian: apt-get install python3-dev" >&2; exit 1; }
	@echo "Making $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)
