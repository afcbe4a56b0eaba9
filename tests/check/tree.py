"""tree.py - what the checks of this folder share: the source tree's files, and how a result is told."""
import os
import re
import sys

TOP = os.path.realpath(os.path.join(os.path.dirname(__file__), "../.."))
BUILD = os.environ.get("HUTCH_BUILD", os.getcwd())
PROGRAMS = ("fcgi-app", "workers", "gateway", "hostagent", "guestagent", "cli")
FOLDERS = PROGRAMS + ("lib", "proto", "sql", "conf", "docs", "images", "share", "dashboard", "tests", "tools", "packaging", ".ci")
GENERATED = re.compile(r"\.q\.[ch]$|(^|/)migrations\.c$|queries\.def$|\.(o|a|trs|log|pyc)$|/\.deps/|/node_modules/|/__pycache__/")


def files(*endings, folders=FOLDERS):
    """Paths of source files below TOP, generated ones left out; no endings: all. TOP's own files come with '.'."""
    found = []
    for folder in folders:
        for where, _, names in os.walk(os.path.join(TOP, folder)):
            found += [os.path.relpath(os.path.join(where, n), TOP) for n in names]
    if "lib" in folders and "tests" in folders:
        found += [n for n in ("quickstart", "runtests", "configure.ac", "Makefile.am", "autogen.sh", "README.md",
                              "ARCHITECTURE.md", "CONTRIBUTING.md") if os.path.exists(os.path.join(TOP, n))]
    return sorted(f for f in found if not GENERATED.search(f) and (not endings or f.endswith(endings)))


def text(path):
    with open(os.path.join(TOP, path), encoding="utf-8", errors="surrogateescape") as f:
        return f.read()


def is_text(path):
    with open(os.path.join(TOP, path), "rb") as f:
        return b"\0" not in f.read(4096)


def skip(why):
    print("skip %s: %s" % (os.path.basename(sys.argv[0]), why))
    sys.exit(77)


def end(what, faults):
    """One line for the whole check, or one for each fault."""
    name = os.path.basename(sys.argv[0])
    for fault in faults:
        print("not ok %s: %s" % (name, fault))
    if not faults:
        print("ok %s: %s" % (name, what))
    sys.exit(1 if faults else 0)
