# make run · make test · make lint · make lint-k8s · make protos · make demo-model · make real-pict-rs
# make rehearse · make rehearse ROW=kill,hang SECONDS=20 · make containers · make containers PLAY='killed frozen'
# make bench · make bench-overhead · make bench-ledger · make bench-peers · make bench-decode
# make bench-bulk · make bench-evasion · make bench-models
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin

.PHONY: run test lint lint-k8s real-pict-rs rehearse containers bench bench-overhead bench-ledger bench-peers bench-decode bench-bulk bench-evasion bench-models protos format demo-model evaluate-demo constraints

run: .venv/installed
	$(BIN)/imagesafety up

test: .venv/installed
	$(BIN)/python -m pytest

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	cd protos && ../$(BIN)/buf lint
	cd protos && ../$(BIN)/buf format --diff --exit-code --path imagesafety
	cd protos && ../$(BIN)/buf build -o - | ../$(BIN)/buf breaking - --against released.binpb
	$(BIN)/python tools/protos.py --check

# The pict-rs releases that tests/real_pict_rs starts, built once a machine with cargo: 20 minutes.
real-pict-rs:
	$(PYTHON) -m tools.real_pict_rs

# Plays failures with real processes; haproxy has to be there (apt-get install haproxy). All rows take
# about half an hour, 20 minutes of which are the soak.
rehearse: .venv/installed
	$(BIN)/python -m benchmarks.rehearsal $(if $(ROW),--row $(ROW)) $(if $(SECONDS),--seconds $(SECONDS))

# Builds the images, starts Compose beside a real pict-rs, and plays failures. Where no Docker engine
# answers, it says so and succeeds; with INSTALL_ENGINE=1, root gets Debian's for this run.
containers: .venv/installed
	$(BIN)/python -m tools.containers $(PLAY)

# Manifests, compose files and Dockerfile, offline; the manifests where kubectl is installed.
lint-k8s: .venv/installed
	$(BIN)/hadolint Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.*.yml
	$(BIN)/python -m tools.prometheus_rule --check
	$(BIN)/python -m tools.lint_k8s

# Each takes --rounds and --seconds, such as: make bench BENCH='--rounds 1 --seconds 1'
bench: .venv/installed
	$(BIN)/python -m benchmarks.serving.against_bare $(BENCH)

bench-overhead: .venv/installed
	$(BIN)/python -m benchmarks.serving.overhead $(BENCH)

bench-ledger: .venv/installed
	$(BIN)/python -m benchmarks.serving.ledger $(BENCH)

bench-peers: .venv/installed .venv-peers/installed
	$(BIN)/python -m benchmarks.serving.against_peers $(BENCH)

bench-decode: .venv/installed
	$(BIN)/python -m benchmarks.decode
	$(BIN)/python -m benchmarks.decode_memory

bench-bulk: .venv/installed
	$(BIN)/python -m benchmarks.bulk $(BENCH)
	$(BIN)/python -m benchmarks.evaluate_memory

# What hides a drawn subject, and how often: takes --pictures and --seed.
bench-evasion: .venv/installed
	$(BIN)/python -m benchmarks.evasion $(BENCH)

# Speed and memory of the models that docs/models.md lists, with random weights.
bench-models: .venv/installed
	$(BIN)/python -m benchmarks.models $(BENCH)

format: .venv/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	cd protos && ../$(BIN)/buf format --write --path imagesafety

protos: .venv/installed
	$(BIN)/python tools/protos.py

demo-model: .venv/installed
	$(BIN)/python -m inference.demo.train
	$(BIN)/python -m benchmarks.demo_model

evaluate-demo: .venv/installed
	$(BIN)/python -m benchmarks.demo_model

# Everything that the extras need, pinned. Run it to move to newer versions.
constraints:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --editable '.[gateway,inference,evaluate,scan,dev]'
	$(BIN)/python -m pip freeze --exclude-editable > constraints.txt
	touch .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("imagesafety needs Python 3.11 or newer" if sys.version_info < (3, 11) else 0)'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing what the services need (torch is large: some minutes the first time)"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[gateway,inference,evaluate,scan,dev]'
	touch .venv/installed

# What `make bench-peers` compares with. The model is theirs and ours: torch, open_clip and Pillow
# are those of .venv, which come second on the path of this environment.
.venv-peers/installed: benchmarks/peers/requirements.txt .venv/installed
	$(PYTHON) -m venv --clear .venv-peers
	.venv-peers/bin/python -m pip install --quiet --requirement benchmarks/peers/requirements.txt
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > .venv-peers/ours
	mv .venv-peers/ours "$$(.venv-peers/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/ours.pth"
	touch .venv-peers/installed
