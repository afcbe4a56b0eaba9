# embed.awk - migrations as C: struct migration { number, name, text } in order of their file names.
# usage: awk -f embed.awk 0001_x.sql 0002_y.sql … > migrations.c
function base(p) { sub(/.*\//, "", p); return p }
BEGIN { print "/* Generated from sql/migrations/ by tools/embed.awk. */\n#include \"migration.h\"\n\nconst struct migration migrations[] = {" }
FNR == 1 {
	if (NR > 1) print "\t},"
	name = base(FILENAME)
	printf "\t{ %d, \"%s\",\n", substr(name, 1, 4) + 0, name
}
{ s = $0; gsub(/\\/, "\\\\", s); gsub(/"/, "\\\"", s); printf "\t    \"%s\\n\"\n", s }
END { print "\t},\n\t{ 0 }\n};" }
