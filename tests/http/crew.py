"""crew.py - what the Python tests of teams, keys and audit share: calls, accounts, SQL. No test by itself."""
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request

URL = os.environ["HUTCH_URL"]
DB = os.environ["HUTCH_TEST_DB"]
RUN = f"{int(time.time() * 1000):x}"
PASSWORD = "a long enough one"
counts = {"ok": 0, "not ok": 0}


def check(name, good, why=""):
    counts["ok" if good else "not ok"] += 1
    print(f"ok {name}" if good else f"not ok {name}: {str(why)[:400]}", flush=True)


def end():
    print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
    sys.exit(1 if counts["not ok"] else 0)


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.raw = status, headers, body

    @property
    def json(self):
        return json.loads(self.raw) if self.raw else None

    @property
    def code(self):
        return self.json["error"]["code"] if self.status >= 400 else ""

    def bare(self):
        """All but what differs in each answer."""
        return self.status, re.sub(rb'"request_id":"[^"]*"', b"", self.raw)

    def __repr__(self):
        return f"{self.status} {self.raw[:300]!r}"


def call(method, path, body=None, headers=None):
    data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
    names = dict(headers or {})
    if data is not None:
        names["Content-Type"] = "application/json"
    req = urllib.request.Request(URL + path, data, names, method=method)
    try:
        with urllib.request.urlopen(req, timeout=150) as a:
            return Answer(a.status, a.headers, a.read())
    except urllib.error.HTTPError as e:
        return Answer(e.code, e.headers, e.read())


def sql(statement, *options):
    return subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", *options, "-c", statement, DB], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def together(*functions):
    """All at the same moment; their answers in order."""
    gate = threading.Barrier(len(functions))

    def one(f):
        gate.wait()
        return f()
    with concurrent.futures.ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(one, functions))


class Person:
    """An account with a team of its own. Activated by SQL: the mail's way is tested elsewhere."""
    number = 0

    def __init__(self, name="p", email=None):
        Person.number += 1
        self.name = name
        self.email = email or f"{name}{Person.number}-{RUN}@crew-{RUN}.example"
        a = call("POST", "/v1/auth/signup", {"email": self.email, "password": PASSWORD, "name": name})
        assert a.status == 201, a
        sql(f"UPDATE users SET status = 'active', email_verified_at = now(), activated_at = now() WHERE email = '{self.email}'")
        self.login()
        self.own_team = self.team

    def login(self, team=None):
        a = call("POST", "/v1/auth/login", {"email": self.email, "password": PASSWORD, **({"team_id": team} if team else {})})
        assert a.status == 200, a
        me = a.json
        self.token, self.id, self.team = me["token"], me["user_id"], me["team_id"]
        return self

    def __call__(self, method, path, body=None, **headers):
        return call(method, path, body, {"Authorization": f"Bearer {self.token}", **{k.replace("_", "-"): v for k, v in headers.items()}})

    def into(self, owner, role):
        """Adds this person to the team of the owner's token, and signs in there."""
        a = owner("POST", f"/v1/teams/{owner.team}/members", {"email": self.email, "role": role})
        assert a.status == 201, a
        return self.login(owner.team)


def with_key(key, method, path, body=None):
    return call(method, path, body, {"X-API-Key": key})


def uuid_of(wire):
    n = 0
    for c in wire.split("-", 1)[1]:
        n = n * 36 + "0123456789abcdefghijklmnopqrstuvwxyz".index(c)
    h = f"{n:032x}"
    return f"{h[:8]}-{h[8:12]}-{h[12:16]}-{h[16:20]}-{h[20:]}"


def audit(team, where="true"):
    """Rows of a team's log: resource/action, oldest first."""
    return sql(f"SELECT resource_type || '/' || action FROM audit_logs WHERE team_id = '{uuid_of(team)}' AND {where} ORDER BY seq").split()
