# Everything here sets up what it needs first. `make help` says what there is.
#
#   ROS_DISTRO=humble make test     the tests that need ROS 2, on Humble
#   make demo CLIP=clip.mp4 MODEL=models/siam_stm_lite0

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

export ROS_DISTRO ?= jazzy

IN_ROS := scripts/with_ros.sh
# The same choice of folder as in scripts/common.sh.
VENV := .venv$(if $(wildcard $(or $(SIAM_TRACKER_ROS_ROOT),/opt/ros)/$(ROS_DISTRO)/setup.bash),-$(ROS_DISTRO))
TYPED := $(wildcard $(addprefix siam_tracker_ros/,__init__.py geometry bundle tracking inference nodes deployment))
FORMATTED := siam_tracker_ros test setup.py scripts/wheel_bin/ros2 $(wildcard launch)
JAMMY_TESTS := $(wildcard test/geometry test/bundle test/tracking)

.PHONY: help
help: ## say what there is
	@awk -F ':.*## ' '/^[a-z0-9_-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: setup
setup: ## make the Python environment, with ROS 2 where the machine has none
	@scripts/setup_env.sh

.PHONY: test
ifeq ($(ROS_DISTRO),humble)
test: setup ## run every check and test (on Humble: the tests that need ROS 2)
else
test: setup lint test-jammy
endif
	@# NVIDIA's packages come with NVIDIA's terms: only where CI asks for it; without them two tests are skipped.
	@[ -z "$${SIAM_TRACKER_CI:-}" ] || timeout 180 scripts/setup_tensorrt_check.sh || echo "skipped: TensorRT's parser and bindings"
	scripts/run_tests.sh $(PYTEST_ARGS)

.PHONY: check-tensorrt
check-tensorrt: setup ## compile every model with TensorRT's own parser, without a GPU (NVIDIA's terms: docs/quantisation.md)
	scripts/setup_tensorrt_check.sh
	$(VENV)/bin/python -m pytest test/deployment/test_tensorrt_compiles.py test/inference/test_engine_build.py

.PHONY: test-jammy
test-jammy: ## run geometry's, bundle's and tracking's tests on Python 3.10 with Ubuntu 22.04's NumPy and OpenCV
	@status=0; scripts/setup_env.sh jammy || status=$$?; \
	if [ $$status = 3 ]; then \
	    echo "skipped: geometry, bundle and tracking on Ubuntu 22.04's versions: no Python 3.10 here (pyenv install 3.10)"; \
	elif [ $$status != 0 ]; then exit $$status; \
	else .venv310/bin/python -m pytest $(JAMMY_TESTS); fi

.PHONY: lint
lint: setup ## check style, format, types and the walls between rooms
	$(VENV)/bin/ruff check $(FORMATTED)
	$(VENV)/bin/ruff format --check $(FORMATTED)
	$(VENV)/bin/mypy $(TYPED)
	$(VENV)/bin/lint-imports

.PHONY: format
format: setup ## put the code into its format
	$(VENV)/bin/ruff check --fix-only $(FORMATTED)
	$(VENV)/bin/ruff format $(FORMATTED)

.PHONY: demo
demo: setup ## follow an object in a clip over a real ROS 2 graph (CLIP=, MODEL=)
	$(IN_ROS) siam-tracker demo $(if $(CLIP),--clip "$(CLIP)") $(if $(MODEL),--model "$(MODEL)")

.PHONY: shell
shell: setup ## a shell in the ROS 2 environment, with the package in it
	@$(IN_ROS) bash

.PHONY: locks
locks: ## write requirements/*.txt from requirements/*.in
	@scripts/compile_locks.sh

.PHONY: clean
clean: ## remove environments, builds and caches
	rm -rf .venv .venv-* .venv310 .tools .ros build install log .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
