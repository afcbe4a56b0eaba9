"""schema.py - checks an answer against docs/openapi.json: the part of JSON Schema that Hutch prints."""
import json
import re

FORMATS = {
    "date-time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z",
    "uuid": r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
    "email": r"[^@\s]+@[^@\s]+",
}
TYPES = {
    "object": lambda v: isinstance(v, dict),
    "array": lambda v: isinstance(v, list),
    "string": lambda v: isinstance(v, str),
    "boolean": lambda v: isinstance(v, bool),
    "null": lambda v: v is None,
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
}


class Schema:
    """The operations of one OpenAPI document."""

    def __init__(self, path):
        with open(path) as f:
            self.doc = json.load(f)
        self.routes = []
        for template, item in self.doc.get("paths", {}).items():
            pattern = re.sub(r"\\{[^}]*\\}", "[^/]+", re.escape(template))
            exact = "{" not in template
            self.routes.append((not exact, re.compile(pattern + "$"), template, item))
        self.routes.sort(key=lambda r: (r[0], -len(r[2])))

    def operation(self, method, path):
        for _, pattern, _, item in self.routes:
            if pattern.match(path) and method.lower() in item:
                return item[method.lower()]
        return None

    def check(self, method, path, status, headers, body):
        """What is wrong with an answer, or None. A path that is not in the document must be an error."""
        op = self.operation(method, path.split("?")[0])
        if op is None:
            return None if status >= 400 else "%s %s is not in openapi.json" % (method, path)
        answers = op.get("responses", {})
        known = [k for k in (str(status), "%dXX" % (status // 100), "default") if k in answers]
        if not known:
            return "openapi.json has no answer %d for %s %s" % (status, method, path)
        content = self.resolve(answers[known[0]]).get("content", {})
        kind = headers.get("content-type", "").split(";")[0]
        if not content:
            return "openapi.json says no body, but there is one" if body else None
        if kind not in content:
            return "content type %s is not among %s" % (kind or "(none)", ", ".join(content))
        if kind != "application/json":
            return None
        return self.value(content[kind].get("schema", {}), json.loads(body), "body")

    def resolve(self, s):
        while isinstance(s, dict) and "$ref" in s:
            at = self.doc
            for part in s["$ref"].lstrip("#/").split("/"):
                at = at[part]
            s = at
        return s

    def value(self, s, v, at):
        s = self.resolve(s)
        if s is True or not s:
            return None
        for word in ("oneOf", "anyOf"):
            if word in s and all(self.value(one, v, at) for one in s[word]):
                return "%s fits none of %s" % (at, word)
        for one in s.get("allOf", []):
            wrong = self.value(one, v, at)
            if wrong:
                return wrong
        return (self.kind(s, v, at) or self.limits(s, v, at) or self.members(s, v, at)
                or self.items(s, v, at))

    def kind(self, s, v, at):
        if v is None and s.get("nullable"):
            return None
        kinds = s.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        if kinds and not any(TYPES[k](v) for k in kinds):
            return "%s is %s, not %s" % (at, json.dumps(v)[:60], " or ".join(kinds))
        if "enum" in s and v not in s["enum"]:
            return "%s is %s, not in the enum" % (at, json.dumps(v)[:60])
        if "const" in s and v != s["const"]:
            return "%s is %s, not the constant" % (at, json.dumps(v)[:60])
        return None

    def limits(self, s, v, at):
        if isinstance(v, str):
            if not s.get("minLength", 0) <= len(v) <= s.get("maxLength", len(v)):
                return "%s has %d characters" % (at, len(v))
            pattern = s.get("pattern")
            if pattern and not re.search(pattern, v):
                return "%s does not match %s" % (at, pattern)
            form = FORMATS.get(s.get("format", ""))
            if form and not re.fullmatch(form, v):
                return "%s is no %s: %s" % (at, s["format"], v[:60])
        elif TYPES["number"](v):
            if not s.get("minimum", v) <= v <= s.get("maximum", v):
                return "%s is out of range: %s" % (at, v)
        return None

    def members(self, s, v, at):
        if not isinstance(v, dict):
            return None
        known = s.get("properties", {})
        for name in s.get("required", []):
            if name not in v:
                return "%s has no %s" % (at, name)
        for name, member in v.items():
            if name in known:
                wrong = self.value(known[name], member, at + "." + name)
            else:
                wrong = self.unknown(s.get("additionalProperties", not known), member, at, name)
            if wrong:
                return wrong
        return None

    def unknown(self, more, member, at, name):
        """A member that has no row: stricter than JSON Schema, whose default is to let it pass."""
        if more is False:
            return "%s has %s, which openapi.json does not know" % (at, name)
        return None if more is True else self.value(more, member, at + "." + name)

    def items(self, s, v, at):
        if not isinstance(v, list):
            return None
        if not s.get("minItems", 0) <= len(v) <= s.get("maxItems", len(v)):
            return "%s has %d items" % (at, len(v))
        for i, one in enumerate(v):
            wrong = self.value(s.get("items", {}), one, "%s[%d]" % (at, i))
            if wrong:
                return wrong
        return None
