# tests/check/local.mk - the tree against its own rules: plain tests of make check.
CHECKS = tests/check/includes tests/check/sizes tests/check/words tests/check/errors tests/check/conf tests/check/man \
	tests/check/fresh tests/check/routes tests/check/matrix tests/check/format tests/check/shell tests/check/jwt
TESTS += $(CHECKS)
EXTRA_DIST += $(CHECKS) .ci/run tests/check/tree.py tests/check/sizes.exceptions
size-report:
	@$(srcdir)/tests/check/sizes --report
.PHONY: size-report
