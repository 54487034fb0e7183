# The same as `python run.py book` and `python run.py test`.
PYTHON ?= python3

.PHONY: book test
book test:
	$(PYTHON) run.py $@
