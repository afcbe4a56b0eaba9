# queries.sh - every query of sql/queries against the schema.
# shellcheck shell=bash disable=SC2034  # FAILED: read by run

"$BUILD/tests/sql/check_sql" "host=$DIR dbname=hutch user=hutch_owner" || FAILED=1
