# msrecd: `make demo` and `make test` do everything on a fresh Debian 12/13 or Raspberry Pi OS, set-up included.
SHELL := /bin/bash
.DEFAULT_GOAL := help
VENV ?= .venv
STAMP := $(VENV)/.msrecd-setup
BIN := $(VENV)/bin
# More arguments for pytest: make test ARGS="-k rotation -x"
ARGS ?=
export PATH := $(PATH):/usr/sbin:/sbin

.PHONY: help setup demo faults torn-test bench soak fidelity acceptance acceptance-inputs acceptance-mqtt acceptance-year acceptance-recorders leak-test twenty deb deb-test pip-test test test-quick conformance trixie-test vm-test cma-test upstream ha-test fleet-test promises coverage fuzz lint format types clean

help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# Anew when the list of packages changes; otherwise this is instant.
$(STAMP): pyproject.toml scripts/setup.sh
	@VENV=$(VENV) scripts/setup.sh

# Half a gigabyte more, a browser for the most part: not for the demo.
$(STAMP)-tests: $(STAMP)
	@VENV=$(VENV) scripts/setup.sh --tests

setup: $(STAMP) ## install what is missing (Debian packages, then .venv)

demo: $(STAMP) ## record 20 seconds under MQTT control and show the result
	@$(BIN)/python scripts/demo.py $(ARGS)

test: $(STAMP)-tests ## everything that needs no hardware
	@VENV=$(VENV) $(BIN)/python scripts/test.py $(ARGS)

test-quick: $(STAMP) ## without the tests that take more than ten seconds
	@$(BIN)/python scripts/test.py --quick $(ARGS)

conformance: $(STAMP) ## the web-platform-tests that apply: rows, covered, passing
	@$(BIN)/python tests/conformance/table.py $(ARGS)

bench: $(STAMP) ## what recording costs, beside ffmpeg, GStreamer and mediamtx on the same input (half an hour; ARGS=--quick: eight minutes)
	$(BIN)/python benchmarks/bench.py $(ARGS)

soak: $(STAMP) ## two hours of recording with rotation: does memory grow? (ARGS="--minutes 10" for less)
	$(BIN)/python benchmarks/soak.py $(ARGS)

fidelity: $(STAMP) ## sync over 24 simulated hours on six sound clocks and twenty minutes of each way, 100 seams, 200 starts (an hour)
	MSRECD_STARTS_TIMED=200 $(BIN)/python -m pytest -s tests/fidelity/test_start_reaches.py
	MSRECD_DAY_S=86400 MSRECD_SEAMS=100 $(BIN)/python -m pytest -n 2 -rP tests/fidelity/test_sync_over_days.py \
	    tests/fidelity/test_seams_of_chunks.py $(ARGS)
	MSRECD_PATHS_S=1200 $(BIN)/python -m pytest -n 6 -rP tests/fidelity/test_sync_over_paths.py $(ARGS)

# Parts run side by side: they mostly wait. What fails is told, and the table is printed all the same.
faults: $(STAMP)-tests ## 500 kills of a writer and of the daemon, cuts, failing calls, stalls, torn writes: a table (12 minutes)
	@rm -f .cache/faults.jsonl; mkdir -p .cache; export MSRECD_FAULT_TABLE=$(CURDIR)/.cache/faults.jsonl; failed=0; \
	MSRECD_FAULTS=1 MSRECD_CUTS=$${MSRECD_CUTS:-500} MSRECD_MUTATIONS=1 MSRECD_MODEL_EXAMPLES=1000 \
	    $(BIN)/python -m pytest -q -n 2 tests/storage $(ARGS) || failed=1; \
	MSRECD_KILLS=$${MSRECD_KILLS:-84} MSRECD_KILL_PARTS=$${MSRECD_KILL_PARTS:-6} \
	    $(BIN)/python -m pytest -q -n 3 tests/system/test_kill.py $(ARGS) || failed=1; \
	MSRECD_STALLS="1 5 30" $(BIN)/python -m pytest -q tests/system/test_stall.py $(ARGS) || failed=1; \
	$(BIN)/python -m pytest -q -n 2 tests/system/test_disk_full.py tests/system/test_recorder.py \
	    -k "full or inodes or read_only or hangs" $(ARGS) || failed=1; \
	$(BIN)/python tests/support/fault_table.py .cache/faults.jsonl || failed=1; exit $$failed

torn-test: $(STAMP) ## power cuts with torn writes on ext4 and FAT32, in a virtual machine (root, QEMU, a Debian mirror)
	@scripts/torn-test.sh $(ARGS)

acceptance: $(STAMP) ## the long versions of the system tests: ten minutes, 50 kills of six recorders each, 100 cycles, 100 starts (some 35 minutes)
	MSRECD_LONG_S=600 MSRECD_KILLS=50 MSRECD_CYCLES=100 MSRECD_STARTS=100 $(BIN)/python -m pytest -s \
	    tests/system/test_long.py tests/system/test_kill.py tests/system/test_cycles.py

leak-test: $(STAMP) ## recorders and clones that come and go for ten minutes: nothing may stay behind
	MSRECD_LEAK_S=$${MSRECD_LEAK_S:-600} $(BIN)/python -m pytest -s tests/media/test_leaks.py $(ARGS)

twenty: $(STAMP) ## the tests of the object model twenty times in a row, and twenty with asyncio's debug mode (hours; resumes)
	@BIN=$(BIN) scripts/twenty.sh $(ARGS)

acceptance-inputs: $(STAMP) ## a network camera for an hour in real time, days of live inputs, the whole matrix of files (two hours)
	MSRECD_LIVE_S=3600 MSRECD_INPUT_DAY=1 MSRECD_MATRIX=1 $(BIN)/python -m pytest -s tests/system/test_camera_hour.py \
	    tests/inputs/test_input_timeline.py tests/inputs/test_matrix_whole.py $(ARGS)

acceptance-mqtt: $(STAMP) ## outage of 10 000 events, 100 killed brokers, fuzzing: the long versions (some 20 minutes)
	MSRECD_OUTAGE_EVENTS=10000 MSRECD_BROKER_KILLS=100 MSRECD_FUZZ=1000000 MSRECD_FUZZ_BROKER=50000 \
	    $(BIN)/python -m pytest -s tests/system/test_mqtt_outage.py tests/system/test_mqtt_kills.py \
	    tests/system/test_fuzz_broker.py tests/mqtt $(ARGS)

acceptance-year: $(STAMP) ## 10 000 schedules against the judge, twenty years, 1 000 reloads: the long versions (some 20 minutes)
	MSRECD_SCHEDULES=10000 MSRECD_YEARS=20 $(BIN)/python -m pytest -s tests/schedule $(ARGS)
	MSRECD_RELOADS=1000 $(BIN)/python -m pytest -s tests/system/test_reload.py $(ARGS)

acceptance-recorders: $(STAMP)-tests ## off-load of 10 000 chunks to versitygw with 200 kills and 5 % wrong answers, hours of motion and sound (two hours)
	MSRECD_OFFLOAD_KILLS=10000,200,0.05 $(BIN)/python -m pytest -s tests/system/test_offload_kills.py $(ARGS)
	MSRECD_OFFLOAD=10000,200,0.05 MSRECD_LONG=1 $(BIN)/python -m pytest -s tests/offload/test_sending.py tests/triggers $(ARGS)

fuzz: $(STAMP)-tests ## spoiled inputs of 40 formats, RTP, cards, configurations and MQTT for an hour (MSRECD_FUZZ_S=600 for less)
	MSRECD_FUZZ_S=$${MSRECD_FUZZ_S:-3600} MSRECD_FUZZ_COMMAND_S=$${MSRECD_FUZZ_COMMAND_S:-1800} MSRECD_FUZZ=1000000 MSRECD_FUZZ_BROKER=50000 $(BIN)/python -m pytest -rP -n 2 \
	    tests/fuzz tests/hostile tests/system/test_fuzz_broker.py tests/control/test_control_commands.py $(ARGS)

promises: ## the sentences of the documentation that promise something, the tests behind them, their last results
	@$(if $(wildcard $(BIN)/python),$(BIN)/python,python3) tests/support/promises.py

coverage: $(STAMP)-tests ## which branches the tests take, and the least that they must (a second `make test`, slower)
	@$(BIN)/python scripts/branches.py $(ARGS)

lint: $(STAMP) ## ruff: rules and format (`make format` repairs)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(STAMP) ## ruff: repair what it can, then format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(STAMP) ## mypy --strict
	$(BIN)/mypy

trixie-test: ## the tests on Debian 13 with its own packages only (Python 3.13; root; makes .cache/trixie once)
	@scripts/trixie-test.sh $(ARGS)

vm-test: $(STAMP) ## the hardware tests in a virtual machine with real drivers (root; makes .cache/vm once)
	@scripts/apt-install.sh qemu-system-x86 qemu-utils e2fsprogs git
	@$(BIN)/python hw-tests/vm/run.py $(ARGS)

cma-test: $(STAMP) ## part of vm-test: an arm64 kernel with 512 MB whose page cache is in CMA (QEMU, a Debian mirror; two minutes)
	@scripts/apt-install.sh qemu-system-arm gcc-aarch64-linux-gnu libc6-dev-arm64-cross cpio
	@$(BIN)/python hw-tests/vm/cma.py

upstream: $(STAMP)-tests ## each answer to what picamera2, libcamera, the kernel do is taken out: its tests must fail (ten minutes)
	@MSRECD_UPSTREAM=1 $(BIN)/python -m pytest -q -n 2 -rA tests/devices/test_upstream.py $(ARGS)

ha-test: ## a real Home Assistant core with a real daemon (root, PyPI; makes .cache/trixie-ha once)
	@scripts/ha-test.sh $(ARGS)

fleet-test: ## two sites, three RabbitMQ nodes, PostgreSQL, 200 devices, in network namespaces (root; makes .cache/trixie-fleet once; an hour)
	@scripts/fleet-test.sh $(ARGS)

deb: ## the Debian package, in dist/
	@scripts/build-deb.sh

deb-test: ## the life of the package on a Debian 13 that is booted for it, with systemd (root; makes .cache/trixie-fresh once)
	@scripts/deb-test.sh

pip-test: ## `pip install .` and `pipx install .` in fresh environments (fetches from PyPI)
	@scripts/pip-test.sh

clean: ## remove what make and the tests made (not the recordings of the demo)
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
