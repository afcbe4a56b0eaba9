# sqlgen.awk - turn sql/queries/NAME.sql into NAME.q.h and NAME.q.c.
#
# usage: awk -v mode=h|c -f sqlgen.awk NAME.sql
#
# A file holds, in this order of use:
#   -- row: NAME            then "--   column type[?], ..." lines: a C struct q_NAME
#   -- name: NAME :one ROW  then one comment line (it becomes the C comment), then SQL
#   -- part: NAME           then SQL up to an empty line: what queries below say as {{NAME}}
# Parameters are written :param::type; add ? after the type for one that may be NULL.
# Kinds: :one ROW  1 row, or 0 rows;  :many ROW  an array;  :exec  rows affected.
# SQL types become C types in ctype(); a NULL number is NULL_INT or NULL_INT4 (db.h), other NULLs are NULL.

function die(s) { printf "%s:%d: %s\n", FILENAME, FNR, s > "/dev/stderr"; bad = 1; exit 1 }
function ctype(t) {
	if (t == "int4") return "int32_t "
	if (t ~ /^(int8|timestamptz)$/) return "int64_t "
	if (t == "float8") return "double "
	if (t == "bool") return "bool "
	if (t == "uuid") return "const struct uuid *"
	if (t == "bytea") return "struct bytes "
	if (t == "text[]") return "const char *const *"
	if (t ~ /^(text|jsonb)$/) return "const char *"
	die("no C type for SQL type \"" t "\": add it to ctype()")
}
function ftype(t) { sub(/\[\]/, "S", t); return "T_" toupper(t) }
function trim(s) { sub(/^[ \t]+/, "", s); sub(/[ \t]+$/, "", s); return s }
function rowcols(s,   i, n, p, c) {
	n = split(s, p, ",")
	for (i = 1; i <= n; i++) {
		p[i] = trim(p[i]); if (p[i] == "") continue
		split(p[i], c, " ")
		nul[row, ++ncol[row]] = (c[2] ~ /\?$/); sub(/\?$/, "", c[2])
		cname[row, ncol[row]] = c[1]; ctyp[row, ncol[row]] = c[2]
	}
}
function flush_query() {
	if (q == "") return
	sub(/;[ \t\n]*$/, "", sql[q]); q = ""
}
# Replace {{NAME}} by that part.
function with_parts(s,   nm) {
	while (match(s, /[{][{][a-z_0-9]+[}][}]/)) {
		nm = substr(s, RSTART + 2, RLENGTH - 4)
		if (!(nm in part)) die("no part \"" nm "\"")
		s = substr(s, 1, RSTART - 1) part[nm] substr(s, RSTART + RLENGTH)
	}
	return s
}
# Replace :name::type by $n::type and remember the parameter once.
function params(s,   out, m, nm, ty, opt, i) {
	out = ""
	while (match(s, /:[a-z_][a-z0-9_]*::[a-z0-9]+(\[\])?\??/)) {
		if (RSTART > 1 && substr(s, RSTART - 1, 1) == ":") die("stray ::")
		out = out substr(s, 1, RSTART - 1)
		m = substr(s, RSTART + 1, RLENGTH - 1); s = substr(s, RSTART + RLENGTH)
		opt = sub(/\?$/, "", m)
		nm = m; sub(/::.*/, "", nm); ty = m; sub(/.*::/, "", ty)
		if (!((q, nm) in pidx)) {
			pidx[q, nm] = ++np[q]; pname[q, np[q]] = nm
			ptype[q, np[q]] = ty; popt[q, np[q]] = opt
		} else if (ptype[q, pidx[q, nm]] != ty)
			die("parameter " nm " is both " ptype[q, pidx[q, nm]] " and " ty)
		out = out "$" pidx[q, nm] "::" ty
	}
	return out s
}
/^-- row: /  { flush_query(); row = $3; rows[++nrow] = row; inrow = 1; next }
inrow && /^--   / { s = $0; sub(/^--/, "", s); rowcols(s); next }
inrow        { inrow = 0 }
/^-- part: / { flush_query(); of = $3; part[of] = ""; inpart = 1; next }
inpart && !/^[ \t]*$/ { part[of] = part[of] (part[of] == "" ? "" : "\n") $0; next }
inpart       { inpart = 0; next }
/^-- name: / {
	flush_query(); q = $3; qs[++nq] = q; kind[q] = $4; qrow[q] = $5; line[q] = FNR; wantdoc = 1
	if (kind[q] !~ /^:(one|many|exec)$/) die("kind must be :one, :many or :exec")
	if (kind[q] != ":exec" && !(qrow[q] in ncol)) die("no row \"" qrow[q] "\"")
	next
}
q != "" && wantdoc && /^-- / { doc[q] = substr($0, 4); wantdoc = 0; next }
q != "" && /^--/ { next }
q != "" && !/^[ \t]*$/ {
	if (!(q in doc)) die("query " q " has no comment line")
	sql[q] = sql[q] (sql[q] == "" ? "" : "\n") params(with_parts($0)); next
}
END {
	if (bad) exit 1
	flush_query()
	base = FILENAME; sub(/.*\//, "", base); sub(/\.sql$/, "", base)
	sub(/^.*sql\/queries\//, "sql/queries/", FILENAME)
	print "/* Generated from " FILENAME " by tools/sqlgen.awk: edit that. */"
	if (mode == "h") emit_h(); else emit_c()
}
function emit_h(   i, j, r, n, a) {
	print "#pragma once\n#include \"db.h\"\n"
	for (i = 1; i <= nrow; i++) {
		r = rows[i]; print "struct q_" r " {"
		for (j = 1; j <= ncol[r]; j++)
			printf "\t%s%s;%s\n", ctype(ctyp[r, j]), cname[r, j], (nul[r, j] ? "\t/* or NULL */" : "")
		print "};\n"
	}
	for (i = 1; i <= nq; i++) {
		n = qs[i]
		printf "/* %s  (%s:%d) */\n", doc[n], FILENAME, line[n]
		print "struct q_" n " {"
		for (j = 1; j <= np[n]; j++)
			printf "\t%s%s;%s\n", ctype(ptype[n, j]), pname[n, j], (popt[n, j] ? "\t/* or NULL */" : "")
		print "};"
		print "extern const struct query Q_" n ";"
		if (kind[n] == ":exec")
			printf "#define q_%s(db, ...) \\\n\tdb_exec(db, &Q_%s, &(struct q_%s){ __VA_ARGS__ })\n\n", n, n, n
		else if (kind[n] == ":one")
			printf "#define q_%s(db, row, ...) \\\n\tdb_one(db, &Q_%s, &(struct q_%s){ __VA_ARGS__ }, Q_ROW(struct q_%s, row))\n\n", n, n, n, qrow[n]
		else
			printf "#define q_%s(db, rows, ...) \\\n\tdb_many(db, &Q_%s, &(struct q_%s){ __VA_ARGS__ }, Q_ROW(struct q_%s, rows))\n\n", n, n, n, qrow[n]
	}
}
function emit_c(   i, j, n, r, s) {
	print "#include \"" base ".q.h\"\n"
	for (i = 1; i <= nrow; i++) {
		r = rows[i]; print "static const struct col row_" r "[] = {"
		for (j = 1; j <= ncol[r]; j++)
			printf "\t{ \"%s\", %s, offsetof(struct q_%s, %s), %d },\n", cname[r, j], ftype(ctyp[r, j]), r, cname[r, j], nul[r, j]
		print "\t{ 0 }\n};\n"
	}
	for (i = 1; i <= nq; i++) {
		n = qs[i]; s = sql[n]
		gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); gsub(/\n/, "\\n\"\n\t    \"", s)
		print "const struct query Q_" n " = {"
		printf "\t.name = \"%s\",\n\t.where = \"%s:%d\",\n\t.sql = \"%s\",\n", n, FILENAME, line[n], s
		print "\t.param = (const struct col[]){"
		for (j = 1; j <= np[n]; j++)
			printf "\t\t{ \"%s\", %s, offsetof(struct q_%s, %s), %d },\n", pname[n, j], ftype(ptype[n, j]), n, pname[n, j], popt[n, j]
		print "\t\t{ 0 } },"
		if (kind[n] != ":exec") printf "\t.row = row_%s,\n\t.rowsize = sizeof(struct q_%s),\n", qrow[n], qrow[n]
		print "};\n"
	}
	printf "const struct query *const queries_%s[] = {\n", base
	for (i = 1; i <= nq; i++) printf "\t&Q_%s,\n", qs[i]
	print "\tNULL\n};"
}
