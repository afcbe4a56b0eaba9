#!/usr/bin/env python3
"""rights.py - the database decides: roles, membership, accounts and keys as they are at the moment of each request.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_MAIL_DIR, HUTCH_TEST_DB.
"""
import email
import email.policy
import glob
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

URL = os.environ["HUTCH_URL"]
MAILS = os.environ["HUTCH_MAIL_DIR"]
DB = os.environ["HUTCH_TEST_DB"]
RUN = f"{int(time.time() * 1000):x}"
counts = {"ok": 0, "not ok": 0}


def check(name, good, why=""):
    counts["ok" if good else "not ok"] += 1
    print(f"ok {name}" if good else f"not ok {name}: {why}", flush=True)


def call(method, path, body=None, **headers):
    data = None if body is None else json.dumps(body).encode()
    names = {k.replace("_", "-"): v for k, v in headers.items()}
    if data is not None:
        names["Content-Type"] = "application/json"
    req = urllib.request.Request(URL + path, data, names, method=method)
    try:
        with urllib.request.urlopen(req, timeout=150) as a:
            return a.status, a.read()
    except urllib.error.HTTPError as e:
        return e.code, e.read()


def code(answer):
    return json.loads(answer[1])["error"]["code"] if answer[0] >= 400 else ""


def sql(statement):
    return subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, DB], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def mailed_token(address):
    for _ in range(600):
        for path in glob.glob(f"{MAILS}/*"):
            with open(path, "rb") as f:
                m = email.message_from_binary_file(f, policy=email.policy.default)
            if m["To"] and address in m["To"]:
                found = re.search(r"token=([A-Za-z0-9_-]+)", m.get_body(("plain",)).get_content())
                if found:
                    return found.group(1)
        time.sleep(0.1)
    raise SystemExit(f"no mail to {address} in {MAILS}")


class Person:
    """Somebody who signed up, with a team of his own and an API key in it."""

    def __init__(self, name):
        self.email = f"{name}-{RUN}@test.example"
        call("POST", "/v1/auth/signup", {"email": self.email, "password": "a long enough one", "name": name})
        me = json.loads(call("POST", "/v1/auth/activate", {"token": mailed_token(self.email)})[1])
        self.token, self.id, self.team = me["token"], me["user_id"], me["team_id"]
        self.key = json.loads(self.post("/v1/api-keys", {"name": "k"})[1])["key"]
        self.where = f"email = '{self.email}'"
        self.member = f"user_id = (SELECT id FROM users WHERE {self.where})"

    def get(self, path):
        return call("GET", path, Authorization=f"Bearer {self.token}")

    def post(self, path, body):
        return call("POST", path, body, Authorization=f"Bearer {self.token}")

    def with_key(self, method, path, body=None):
        return call(method, path, body, X_API_Key=self.key)


def same_but_id(a, b):
    def blank(answer):
        return answer[0], re.sub(rb'"request_id":"[^"]*"', b"", answer[1])
    return blank(a) == blank(b)


ada, bob = Person("ada"), Person("bob")

key_id = json.loads(bob.get("/v1/api-keys")[1])[0]["id"]
other = ada.get(f"/v1/api-keys/{key_id}")
missing = ada.get("/v1/api-keys/key-0000000000000000000000001")
check("another team's key and a missing one are the same 404", other[0] == 404 and same_but_id(other, missing), f"{other} {missing}")
cap = "cl-0000000000000000000000001"
sql(f"""INSERT INTO capsules (id, team_id, template_id, template_name, template_version, observed_state, vcpus, memory_mb, disk_size_mb)
    SELECT '{'0' * 8}-0000-7000-8000-{RUN.zfill(12)[-12:]}'::uuid, m.team_id, t.id, 'minimal', 1, 'stopped', 1, 512, 5120
      FROM users_teams m, templates t WHERE m.{bob.member} AND t.name = 'minimal' LIMIT 1""")
theirs = json.loads(bob.get("/v1/capsules?state=stopped")[1])[0]["id"]
for verb, path in (("GET", ""), ("DELETE", ""), ("POST", "/exec"), ("POST", "/files/read")):
    body = {"cmd": "true", "path": "/x"} if verb == "POST" else None
    a, b = ada.with_key(verb, f"/v1/capsules/{theirs}{path}", body), ada.with_key(verb, f"/v1/capsules/{cap}{path}", body)
    check(f"{verb} …{path}: another team's capsule and a missing one are the same 404", a[0] == 404 and same_but_id(a, b), f"{a} {b}")
check("its own team sees it", bob.with_key("GET", f"/v1/capsules/{theirs}")[0] == 200)

# Hosts hold one build of a template: a capsule never says another version than the one it runs.
sql("INSERT INTO template_versions (template_id, version, digest, size_bytes, disk_size_mb) "
    "SELECT id, current_version + 1000, 'x', 1, 1024 FROM templates WHERE name = 'minimal'")
old = sql("SELECT current_version + 1000 FROM templates WHERE name = 'minimal' LIMIT 1")
a = ada.with_key("POST", "/v1/capsules", {"template": f"minimal@{old}"})
check("a version that no host holds is not found", a[0] == 404, a)
sql("DELETE FROM template_versions WHERE digest = 'x'")

sql(f"UPDATE users_teams SET role = 'viewer' WHERE {ada.member}")
a = ada.post("/v1/capsules", {"template": "minimal"})
check("a role that changed holds for the next request", a[0] == 403 and code(a) == "forbidden", a)
a = ada.with_key("POST", "/v1/capsules", {"template": "minimal"})
check("… and for the keys made before", a[0] == 403 and code(a) == "forbidden", a)
check("… reading is still allowed", ada.get("/v1/capsules")[0] == 200)

sql(f"DELETE FROM users_teams WHERE {ada.member}")
a = ada.get("/v1/capsules")
check("who was removed has no team any more", a[0] == 403 and code(a) == "no_team", a)
check("… and his key is dead", ada.with_key("GET", "/v1/capsules")[0] == 401)

sql(f"INSERT INTO users_teams (team_id, user_id, role, source) SELECT m.team_id, u.id, 'member', 'added' FROM users u, users_teams m "
    f"WHERE u.{ada.where} AND m.{bob.member}")
join = json.loads(call("POST", "/v1/auth/login", {"email": ada.email, "password": "a long enough one"})[1])
check("a member signs in to the team he was added to", join["team_id"] == bob.team and join["role"] == "member", join)
ada.token = join["token"]
sql(f"UPDATE capsules SET owner_id = (SELECT id FROM users WHERE {bob.where}), observed_state = 'error' "
    f"WHERE team_id = (SELECT team_id FROM users_teams m WHERE m.{bob.member})")
a = call("DELETE", f"/v1/capsules/{theirs}", Authorization=f"Bearer {ada.token}")
check("a member does not destroy what somebody else made", a[0] == 403, a)

sql(f"UPDATE users SET status = 'disabled', disabled_at = now() WHERE {bob.where}")
a = bob.get("/v1/me")
check("a disabled account is told so on the next request", a[0] == 403 and code(a) == "account_deactivated", a)
check("… and its keys are dead", bob.with_key("GET", "/v1/capsules")[0] == 401)
a = ada.post("/v1/capsules", {"template": "minimal"})
check("a team without an active owner makes nothing", a[0] == 403 and code(a) == "team_frozen", a)
check("… and is read all the same", ada.get("/v1/capsules")[0] == 200)

sql(f"UPDATE login_sessions SET revoked_at = now() WHERE {ada.member}")
check("a revoked session ends at once", ada.get("/v1/me")[0] == 401)
sql("DELETE FROM capsules WHERE template_name = 'minimal' AND starts = 0 AND host_id IS NULL AND observed_state = 'error'")
print(f"{counts['ok']} passed, {counts['not ok']} failed, 0 skipped")
sys.exit(1 if counts["not ok"] else 0)
