# `make test` and `make demo` set up all they need in .venv; any Python >= 3.10 does: make demo PYTHON=python3.12
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
DEMO := datasets/demo
# For `make gpu`, as data.prepare leaves it.
DATA ?= datasets/covid-semiseg
# Wide enough to learn the phantom, narrow enough for two CPU cores.
SMALL := --data_root $(DEMO) --base_channels 12 --image_size 128

.PHONY: test test-long lint demo gpu clean

test: $(VENV)/ready lint
	OMP_NUM_THREADS=1 $(RUN) -m pytest -n 2 --dist worksteal -m "not long"

test-long: $(VENV)/ready
	$(RUN) -m pytest -m long

lint: $(VENV)/ready
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

# Where nothing can be installed: make gpu RUN=python3
gpu: $(if $(filter $(VENV)/%,$(RUN)),$(VENV)/ready)
	$(RUN) -m benchmarks.gpu --data_root $(DATA) $(FLAGS)

demo: $(VENV)/ready
	rm -rf $(DEMO) runs/demo
	$(RUN) -m data.phantom --out $(DEMO) --labeled 24 --unlabeled 160 --unlabeled_truth --test 100 --size 128
	$(RUN) supervised_train.py $(SMALL) --epoch 100 --save_folder runs/demo/supervised
	$(RUN) fake_labels_generator.py --data_root $(DEMO) --model_path runs/demo/supervised/best.pth \
		--truth_path $(DEMO)/Unlabeled-Mask
	$(RUN) semi_supervised_train.py $(SMALL) --epoch 50 --pretrained_model runs/demo/supervised/best.pth \
		--semi_truth_path $(DEMO)/Unlabeled-Mask --save_folder runs/demo/semi_supervised
	$(RUN) test.py --data_root $(DEMO) --pretrained_model runs/demo/supervised/best.pth \
		--img_save_folder runs/demo/CARes-UNet --save_prob
	$(RUN) test.py --data_root $(DEMO) --pretrained_model runs/demo/semi_supervised/best.pth \
		--img_save_folder runs/demo/semi-CARes-UNet --save_prob
	$(RUN) test.py --data_root $(DEMO) --predictions runs/demo/CARes-UNet/prob runs/demo/semi-CARes-UNet/prob \
		--img_save_folder runs/demo/comparison --save_type overlay --table markdown

$(VENV)/ready: requirements.txt requirements-extras.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt -r requirements-extras.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) runs/demo
