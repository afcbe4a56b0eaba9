#!/usr/bin/env python3
"""selftest.py - the test tools tested: patterns match what they should, schemas refuse what they should."""
import json
import os
import sys
import tempfile

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from pattern import NoMatch, match, parse  # noqa: E402
from schema import Schema  # noqa: E402

MATCHES = [
    ('{"a":1}', {"a": 1}, True), ('{"a":1}', {"a": 1, "b": 2}, False), ('{"a":1,...}', {"a": 1, "b": 2}, True),
    ('{...}', {}, True), ('{"a":1,...}', {"b": 1}, False), ('[1,...]', [1, 2], True), ('[1]', [1, 2], False),
    ('[...]', [], True), ('{"a":"..."}', {"a": "..."}, True), ('{"a":"~^x"}', {"a": "xy"}, True),
    ('{"a":"~^x"}', {"a": 1}, False), ('{"a":"$V","b":"$V"}', {"a": 1, "b": 1}, True),
    ('{"a":"$V","b":"$V"}', {"a": 1, "b": 2}, False), ('{"a":$N}', {"a": 5}, True), ('{"a":"$K"}', {"a": "k"}, True),
    ('{"a":"$K"}', {"a": "j"}, False), ('{"a":true}', {"a": 1}, False), ('{"a":null}', {"a": None}, True),
    ('{"a":"x-$K"}', {"a": "x-k"}, True), ('[{"a":1,...},...]', [{"a": 1, "b": 1}, 3], True),
]
SCHEMA = {
    "paths": {"/t/{id}": {"get": {"responses": {
        "200": {"content": {"application/json": {"schema": {"$ref": "#/components/schemas/T"}}}}, "204": {}}}}},
    "components": {"schemas": {"T": {
        "type": "object", "required": ["id"], "properties": {
            "id": {"type": "string", "maxLength": 3}, "n": {"type": "integer", "minimum": 1},
            "at": {"type": ["string", "null"], "format": "date-time"}, "s": {"type": "string", "enum": ["x", "y"]},
            "l": {"type": "array", "items": {"type": "integer"}},
            "m": {"type": "object", "additionalProperties": {"type": "string"}}}}}}}
ANSWERS = [
    ({"id": "abc"}, True), ({"id": "abcd"}, False), ({}, False), ({"id": 1}, False), ({"id": "a", "z": 1}, False),
    ({"id": "a", "n": 1}, True), ({"id": "a", "n": 0}, False), ({"id": "a", "n": True}, False),
    ({"id": "a", "at": "2026-01-01T00:00:00Z"}, True), ({"id": "a", "at": "yesterday"}, False),
    ({"id": "a", "at": None}, True), ({"id": "a", "s": "z"}, False), ({"id": "a", "l": [1, "2"]}, False),
    ({"id": "a", "m": {"any": "thing"}}, True), ({"id": "a", "m": {"any": 1}}, False), ([], False),
]


def matches(want, got):
    try:
        match(parse(want), got, {"K": "k"})
        return True
    except NoMatch:
        return False


def main():
    failed = 0
    with tempfile.NamedTemporaryFile("w", suffix=".json") as f:
        json.dump(SCHEMA, f)
        f.flush()
        schema = Schema(f.name)
    kind = {"content-type": "application/json; charset=utf-8"}
    results = [("pattern %s on %s" % (w, json.dumps(g)), matches(w, g) == good) for w, g, good in MATCHES]
    results += [("schema on %s" % json.dumps(a), (schema.check("GET", "/t/1", 200, kind, json.dumps(a)) is None) == good)
                for a, good in ANSWERS]
    results += [("schema: %s" % what, (schema.check(*args) is None) == good) for what, args, good in [
        ("unknown status", ("GET", "/t/1", 404, kind, "{}"), False), ("body with 204", ("GET", "/t/1", 204, {}, b"x"), False),
        ("204", ("GET", "/t/1", 204, {}, b""), True), ("other type", ("GET", "/t/1", 200, {"content-type": "text/html"}, b""), False),
        ("undocumented success", ("GET", "/u", 200, kind, "{}"), False), ("undocumented error", ("GET", "/u", 404, kind, "{}"), True)]]
    for name, good in results:
        failed += not good
        print("%s %s" % ("ok" if good else "not ok", name + ("" if good else ": the other way round")))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
