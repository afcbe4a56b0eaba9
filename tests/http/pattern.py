"""pattern.py - expected JSON: JSON with $VARS, "~regex", and ... for "there may be more"."""
import json
import re

REST = "\u2026"


class NoMatch(Exception):
    """Says where and why an answer differs from what was expected."""


def parse(text):
    """Expected JSON to a value; ... becomes a member or an item called REST."""
    out, i, inside = [], 0, []
    while i < len(text):
        c = text[i]
        if c == '"':
            m = re.compile(r'"(?:[^"\\]|\\.)*"').match(text, i)
            if not m:
                raise ValueError("a string does not end: " + text[i:])
            out.append(m.group())
            i = m.end()
            continue
        if text.startswith("...", i):
            out.append('"%s":0' % REST if inside and inside[-1] == "{" else '"%s"' % REST)
            i += 3
            continue
        m = re.compile(r"\$([A-Z_][A-Z0-9_]*)").match(text, i)
        if m:  # a variable that is not a string
            out.append('"$%s"' % m.group(1))
            i = m.end()
            continue
        if c in "{[":
            inside.append(c)
        elif c in "}]":
            inside.pop()
        out.append(c)
        i += 1
    return json.loads("".join(out))


def match(want, got, names, at="body"):
    """Raises NoMatch, or fills names with what "$NAME" stood for."""
    if isinstance(want, str):
        text(want, got, names, at)
    elif isinstance(want, dict):
        if not isinstance(got, dict):
            raise NoMatch("%s is %s, not an object" % (at, json.dumps(got)[:80]))
        for k, w in want.items():
            if k == REST:
                continue
            if k not in got:
                raise NoMatch("%s has no %s: %s" % (at, k, json.dumps(got)[:300]))
            match(w, got[k], names, at + "." + k)
        more = set(got) - set(want)
        if more and REST not in want:
            raise NoMatch("%s has also %s" % (at, ", ".join(sorted(more))))
    elif isinstance(want, list):
        if not isinstance(got, list):
            raise NoMatch("%s is %s, not an array" % (at, json.dumps(got)[:80]))
        fixed = [w for w in want if w != REST]
        if len(got) < len(fixed) or (len(got) > len(fixed) and REST not in want):
            raise NoMatch("%s has %d items, not %d" % (at, len(got), len(fixed)))
        for i, w in enumerate(fixed):
            match(w, got[i], names, "%s[%d]" % (at, i))
    elif want != got or isinstance(want, bool) != isinstance(got, bool):
        raise NoMatch("%s is %s, not %s" % (at, json.dumps(got)[:80], json.dumps(want)))


def text(want, got, names, at):
    """A string: "$NAME" takes or compares, "~regex" searches, else it is equal after filling in."""
    m = re.fullmatch(r"\$([A-Z_][A-Z0-9_]*)", want)
    if m and m.group(1) not in names:
        names[m.group(1)] = got
    elif m:
        if names[m.group(1)] != got:
            raise NoMatch("%s is %s, not %s" % (at, json.dumps(got)[:80], json.dumps(names[m.group(1)])))
    elif want.startswith("~"):
        if not isinstance(got, str) or not re.search(fill(want[1:], names), got):
            raise NoMatch("%s is %s, not like %s" % (at, json.dumps(got)[:80], want[1:]))
    elif fill(want, names) != got:
        raise NoMatch("%s is %s, not %s" % (at, json.dumps(got)[:120], json.dumps(fill(want, names))))


def fill(s, names):
    """$NAME and ${NAME} replaced by what they stand for; $$ is one $."""
    def one(m):
        if m.group() == "$$":
            return "$"
        name = m.group(1) or m.group(2)
        if name not in names:
            raise NoMatch("$%s has no value yet" % name)
        return str(names[name])
    return re.sub(r"\$\$|\$\{([A-Z_][A-Z0-9_]*)\}|\$([A-Z_][A-Z0-9_]*)", one, s)
