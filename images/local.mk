# images/local.mk - the templates' build script; run by quickstart and by packaging, not by make.
EXTRA_DIST += images/build images/kernel.py images/minimal.recipe images/base.recipe \
	images/code-interpreter-v1.recipe images/code-interpreter images/README.md tests/vm/interpreter_test.py
