#!/usr/bin/env python3
"""matrix.py - every route x every kind of caller x every kind of object: who may, may; who may not, gets the refusal of the rules and changes nothing.

The rows come from the programs' own tables of routes, the expectations from the rules (matrix_rules.py) and from the table
permissions of the database. Three rounds: all calls that must be refused, between two digests of the database; all that
are allowed, each on an object of its own; those that take from their caller what he needs, one by one.
Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB, HUTCH_BUILD.
"""
import collections
import concurrent.futures
import http.client
import itertools
import json
import os
import re
import sys
import threading
import time
import urllib.parse

sys.dont_write_bytecode = True
import matrix_rules as rules  # noqa: E402
from crew import RUN, URL, call, check, end, sql, uuid_of  # noqa: E402
from matrix_house import SECRET, House, Objects  # noqa: E402

THREADS = 6
NEVER = re.compile(rf'"[a-z_]*(password_hash|key_hash|token_hash|refresh_hash|code_hash|_enc|secret_access_key)"|\$y\$|{SECRET}|Sanitizer|SELECT ')
PLACE = urllib.parse.urlsplit(URL)
keep = threading.local()


class Combination:
    def __init__(self, route, caller, rel, want):
        self.route, self.caller, self.rel, self.want = route, caller, rel, want
        self.path = self.body = self.status = self.raw = None

    def build(self, objects):
        """The path with ids; objects of calls that may have an effect are their own."""
        r, c, fresh = self.route, self.caller, self.want.allowed
        ids, team = [], None
        for kind, how in zip(r.kinds, self.rel):
            ids.append(objects.id(kind, how, c, fresh, team))
            if kind == "team":
                team = ids[0] if how in ("own", "other") else None
        self.path = r.path
        for p, value in zip(r.params, ids):
            self.path = self.path.replace("{" + p + "}", value)
        self.path += rules.QUERY.get(r.name, "")
        self.body = rules.BODY.get(r.name)
        if callable(self.body):
            self.body = self.body(objects.h, c)
        if r.method != "GET" and self.body is None and "stream" in r.flags:
            self.body = {}

    def call(self):
        headers = dict(self.caller.headers)
        data = None if self.body is None else json.dumps(self.body).encode()
        if data is not None:
            headers["Content-Type"] = "application/json"
        for last in (False, True):
            if not getattr(keep, "c", None):
                keep.c = http.client.HTTPConnection(PLACE.hostname, PLACE.port or 80, timeout=60)
            try:
                keep.c.request(self.route.method, self.path, data, headers)
                a = keep.c.getresponse()
                self.status, self.raw = a.status, a.read()
                return self
            except (OSError, http.client.HTTPException):
                keep.c = None
                if last:
                    raise
        return self

    @property
    def code(self):
        try:
            said = json.loads(self.raw)
            return said["error_code"] if "error_code" in said else said["error"]["code"]
        except (ValueError, KeyError, TypeError):
            return None

    def bare(self):
        return self.status, re.sub(rb'"request_id":"[^"]*"', b"", self.raw)

    def wrong(self, house):
        """What is wrong with the answer, or nothing."""
        text = self.raw.decode(errors="replace")
        if self.status not in self.want.statuses:
            return "another status"
        if self.want.code and self.code != self.want.code:
            return "another code"
        if self.want.allowed and self.status not in rules.ALLOWED and self.route.name in rules.STATE and "gone" not in self.rel and \
                (self.status, self.code) not in rules.STATE[self.route.name]:
            return "refused"
        if NEVER.search(text):
            return f"holds {NEVER.search(text).group(0)}"
        for team, word in house.canary.items():
            if word in text and team != self.caller.team and not (self.caller.platform != "user" and self.route.may in {**rules.PLATFORM, **rules.HOSTS}):
                return f"holds another team's {word}"
        return None

    def __repr__(self):
        return f"{self.caller.name}, {'+'.join(self.rel) or 'no object'}: {self.status} {self.code or ''} for {self.want}"


def relations(route, caller, objects):
    """All ways in which the path's objects stand to the caller: one varies, the others are his own."""
    lists = [objects.relations(k, caller) for k in route.kinds]
    if len(lists) < 2 or route.kinds[1] in ("word", "number"):
        return list(itertools.product(*lists))
    inner = [("own", r) for r in lists[1] if "own" in lists[0]]
    return inner + [(outer, lists[1][-1]) for outer in lists[0] if outer != "own"]


def same_as_random(combos):
    """Somebody else's object and one that is not: the same answer, byte for byte."""
    faults = []
    by_caller = collections.defaultdict(dict)
    for c in combos:
        if not c.want.allowed:
            by_caller[c.caller.name][c.rel] = c
    for group in by_caller.values():
        for rel, c in group.items():
            twin = group.get(tuple("random" if x in ("other", "deleted", "mate", "team") else x for x in rel))
            if twin and c.status == 404 and twin.status == 404 and c.bare() != twin.bare():
                faults.append(f"{c}, and not the answer to a random id")
    return faults


def run(combos):
    with concurrent.futures.ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(Combination.call, combos))


def late(combos, house):
    """One by one; who left is put back. A team that one owner deleted is gone for the next."""
    deleted = set()
    for name in rules.LATE:
        for c in (c for c in combos if c.route.name == name):
            c.call()
            if name.endswith("/leave") and c.status == 204:
                sql(f"INSERT INTO users_teams (team_id, user_id, role, source) VALUES ('{uuid_of(c.caller.team)}', '{uuid_of(c.caller.user)}', "
                    f"'{c.caller.role}', 'added')")
            if name == "DELETE /v1/teams/{id}" and c.caller.team in deleted:
                c.want = rules.NOT_FOUND
            elif name == "DELETE /v1/teams/{id}" and c.status == 204:
                deleted.add(c.caller.team)


def restore_into(house, objects):
    """A restore into a capsule changes it: the permission to make one is not enough (what a body names is not in the table)."""
    by = {c.name: c for c in house.callers}
    cases = [("member", "mate", 403), ("member", "own", 409), ("admin", "mate", 409), ("member's key, data plane", "mate", 403), ("maker", "own", 403),
             ("member", "other", 404)]
    member = by["member"]
    key = house.api_key(house.by_name["member"], ["capsules.create", "capsules.view"])
    by["maker"] = type(member)("maker", "key", {"X-API-Key": key}, user=member.user, team=member.team, role="member")
    ready = [(who, rel, want, objects.id("snapshot", "own", by[who], True), objects.id("capsule", rel, by[who], True)) for who, rel, want in cases]
    house.write()
    for who, rel, want, snapshot, capsule in ready:
        sql(f"UPDATE snapshots SET capsule_id = '{uuid_of(capsule)}' WHERE id = '{uuid_of(snapshot)}'")
        a = call("POST", f"/v1/snapshots/{snapshot}/restore", {"into": capsule}, by[who].headers)
        check(f"restore into a capsule, {who}, {rel}: {want}", a.status == want, a)


def host_details(house, objects):
    """Two routes of hosts that no other test calls: not only who may, but what they do."""
    root = next(c for c in house.callers if c.name == "platform admin")
    host = objects.id("host", "own", root, True)
    house.write()
    a = call("GET", f"/v1/hosts/{host}/capsules", None, root.headers)
    check("a host that holds nothing lists no capsules", a.status == 200 and a.json == [], a)
    a = call("DELETE", f"/v1/hosts/{host}/tags/word", None, root.headers)
    left = sql(f"SELECT count(*) FROM host_tags WHERE host_id = '{uuid_of(host)}'")
    check("a tag of a host is removed", a.status in (200, 204) and left == "0", f"{a} {left}")


def main():
    begin = time.time()
    faults = list(rules.faults(os.environ["HUTCH_BUILD"]))
    check("every route has its rules", not faults, faults)
    house = House()
    objects = Objects(house)
    roles = {line.split("|")[0]: set(line.split("|")[1].split(",")) for line in
             sql("SELECT replace(name, '_', '.') || '|' || array_to_string(roles, ',') FROM permissions").splitlines()}
    made = time.time()
    combos = [Combination(r, c, rel, rules.expected(r, c, rel, roles)) for r in rules.routes(os.environ["HUTCH_BUILD"]) for c in house.callers
              for rel in relations(r, c, objects)]
    for c in combos:
        c.build(objects)
    house.write()
    house.age()
    is_late = [c for c in combos if c.want.allowed and c.route.name in rules.LATE]
    restore_into(house, objects)
    host_details(house, objects)
    before = house.snapshot_of_rows()
    run([c for c in combos if not c.want.allowed])
    after = house.snapshot_of_rows()
    run([c for c in combos if c.want.allowed and c.route.name not in rules.LATE])
    late(is_late, house)

    by_route = collections.OrderedDict()
    for c in combos:
        by_route.setdefault(c.route.name, []).append(c)
    for name, group in by_route.items():
        wrong = [f"{c}: {w}" for c in group for w in [c.wrong(house)] if w] + same_as_random(group)
        check(f"{name}: {len(group)} combinations", not wrong, f"{len(wrong)} unexpected: " + "; ".join(wrong[:6]))
    check("what was refused changed nothing", before == after, sorted(set(before) ^ set(after)))
    allowed = sum(c.want.allowed for c in combos)
    print(f"# {len(by_route)} routes, {len(house.callers)} callers, {len(combos)} combinations: {allowed} allowed, {len(combos) - allowed} refused; "
          f"house {made - begin:.0f} s, calls {time.time() - made:.0f} s, run {RUN}")
    end()


main()
