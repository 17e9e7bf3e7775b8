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

# An interrupted demo goes on where it was: a step is done once, a training is resumed. A finished one starts anew.
RUNS := runs/demo
once = [ -e $(RUNS)/.$(1) ] || { $(2) && touch $(RUNS)/.$(1); }
train = $(RUN) $(1)_train.py `[ -e $(RUNS)/$(1)/last.pth ] && echo --resume $(RUNS)/$(1)/last.pth \
	|| echo $(SMALL) --save_folder $(RUNS)/$(1) $(2)`
predict = $(RUN) test.py --data_root $(DEMO) --pretrained_model $(RUNS)/$(1)/best.pth --img_save_folder $(RUNS)/$(2) \
	--save_prob

demo: $(VENV)/ready
	if [ -e $(RUNS)/.compared ] || [ ! -e $(RUNS)/.drawn ]; then rm -rf $(DEMO) $(RUNS); fi
	mkdir -p $(RUNS)
	$(call once,drawn,$(RUN) -m data.phantom --out $(DEMO) --labeled 24 --unlabeled 160 --unlabeled_truth --test 100 --size 128)
	$(call once,trained,$(call train,supervised,--epoch 100))
	$(call once,labeled,$(RUN) fake_labels_generator.py --data_root $(DEMO) --model_path $(RUNS)/supervised/best.pth \
		--truth_path $(DEMO)/Unlabeled-Mask)
	$(call once,trained_again,$(call train,semi_supervised,--epoch 50 --pretrained_model $(RUNS)/supervised/best.pth \
		--semi_truth_path $(DEMO)/Unlabeled-Mask))
	$(call once,predicted,$(call predict,supervised,CARes-UNet))
	$(call once,predicted_again,$(call predict,semi_supervised,semi-CARes-UNet))
	$(call once,compared,$(RUN) test.py --data_root $(DEMO) --predictions $(RUNS)/CARes-UNet/prob \
		$(RUNS)/semi-CARes-UNet/prob --img_save_folder $(RUNS)/comparison --save_type overlay --table markdown)

$(VENV)/ready: requirements.txt requirements-extras.txt requirements-compare.txt requirements-dev.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=...')"
	$(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --upgrade pip
	$(RUN) -m pip install --quiet -r requirements.txt -r requirements-extras.txt -r requirements-compare.txt -r requirements-dev.txt
	touch $@

clean:
	rm -rf $(VENV) $(DEMO) runs/demo
