# Two commands for a bare machine with Python >= 3.11: `make demo` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test bench bench-exponentials bench-scalesim lint types wheel-test validate clean

$(VENV)/.made:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q --upgrade pip
	touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml
	$(BIN)/pip install -q -e .
	$(BIN)/python -m compileall -q accelsim mappers arch_configs workloads validation
	touch $@

$(VENV)/.developing: $(VENV)/.installed
	$(BIN)/pip install -q --group test --group lint build
	touch $@

# The main job: Llama-2-7B on a TPU v3 core, prefill of 2048 tokens, then decode of 16 sequences.
demo: $(VENV)/.installed
	$(BIN)/accelsim run tpu-v3 llama-2-7b:phase=prefill,tokens=2048
	$(BIN)/accelsim run tpu-v3 llama-2-7b:phase=decode,batch=16,context=2048

test: $(VENV)/.developing
	$(BIN)/pytest -n 2

bench: $(VENV)/.developing
	$(BIN)/pytest -m bench --benchmark-columns=min,median,ops tests/bench

# The largest error of the exponentials over every fp32 argument: two minutes.
bench-exponentials: $(VENV)/.installed
	$(BIN)/python tests/bench/exponentials.py

# CPU time of one GEMM against SCALE-Sim 3.0.0, both measured now.
bench-scalesim: $(VENV)/.installed
	$(BIN)/python tests/bench/compare_scalesim.py build/scalesim-venv

lint: $(VENV)/.developing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.developing
	$(BIN)/mypy

validate: $(VENV)/.installed
	$(BIN)/accelsim validate

# The same tests against an installed wheel, away from the source tree.
wheel-test: $(VENV)/.developing
	rm -rf build/wheel-test dist
	$(BIN)/python -m build --wheel --outdir dist .
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/pip install -q --upgrade pip
	build/wheel-test/venv/bin/pip install -q dist/*.whl --group test
	cp -r tests notebooks docs pyproject.toml build/wheel-test/
	cd build/wheel-test && venv/bin/pytest -n 2

clean:
	rm -rf $(VENV) build dist *.egg-info
