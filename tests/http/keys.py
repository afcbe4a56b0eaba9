#!/usr/bin/env python3
"""keys.py - API keys: scopes, limits, networks, rotation, use: spec 01 §8 rows 26-28.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB.
"""
import os
import secrets
import sys
import zlib

sys.dont_write_bytecode = True
from crew import Person, RUN, audit, call, check, end, sql, together, uuid_of, with_key

ada, bob = Person("ada"), Person("bob")


def make(who=ada, **body):
    a = who("POST", "/v1/api-keys", {"name": "k", **body})
    assert a.status == 201, a
    return a.json


# ---- whose it is (row 26)

k = make()
a = bob("DELETE", f"/v1/api-keys/{k['id']}")
check("another's key: 404, nothing happens", a.status == 404 and with_key(k["key"], "GET", "/v1/capsules").status == 200, a)
check("… and nothing is in the log", audit(ada.team, "action = 'revoke'") == [] and audit(bob.team, "action = 'revoke'") == [])
check("one's own: 204", ada("DELETE", f"/v1/api-keys/{k['id']}").status == 204)
check("again: 404, and one row", ada("DELETE", f"/v1/api-keys/{k['id']}").status == 404 and len(audit(ada.team, "action = 'revoke'")) == 1)
member = Person("member").into(ada, "member")
mine, theirs = make(member), make(ada)
check("members see their own only", [x["id"] for x in member("GET", "/v1/api-keys").json] == [mine["id"]]
      and member("GET", f"/v1/api-keys/{theirs['id']}").status == 404)
check("who manages keys sees all", mine["id"] in [x["id"] for x in ada("GET", f"/v1/api-keys?creator={member.id}").json])
a = member("POST", "/v1/api-keys", {"kind": "team"})
check("a key of the team is for who manages keys", a.status == 403, a)
check("… and works", with_key(make(kind="team", prefix="wrn")["key"], "GET", "/v1/capsules").status == 200)

# ---- scopes, ends, networks (row 27)

k = make(scopes=["capsules.view"])
check("within its scope", with_key(k["key"], "GET", "/v1/capsules").status == 200)
got = [with_key(k["key"], "POST", "/v1/capsules", {"template": "minimal"}) for _ in range(50)]
check("beyond it 403, 50 times", {g.status for g in got} == {403}, got[0])
rows = sql(f"SELECT metadata->>'reason', ip IS NOT NULL, user_agent IS NOT NULL, request_id IS NOT NULL FROM audit_logs "
           f"WHERE action = 'use_denied' AND resource_id = '{k['id']}'")
check("… and one row", rows == "scope|t|t|t", rows)
check("a scope that the caller lacks", member("POST", "/v1/api-keys", {"scopes": ["audit.view"]}).status == 403)
for bad in ({"scopes": ["capsules.fly"]}, {"scopes": ["members.manage"]}, {"scopes": []}, {"allowed_ips": ["10.0.0.0/33"]}, {"allowed_ips": ["here"]},
            {"allowed_ips": ["10.0.0.0/"]}, {"rate_limit": 0}, {"prefix": "abc"}, {"expires_at": "2020-01-01T00:00:00Z"}, {"kind": "cli"},
            {"expires_in": 60, "expires_at": "2099-01-01T00:00:00Z"}, {"name": "<b>"}):
    a = ada("POST", "/v1/api-keys", bad)
    check(f"refused: {bad}", a.status == 400, a)
check("an empty body is refused", call("POST", "/v1/api-keys", None, {"Authorization": f"Bearer {ada.token}"}).status == 400)
a = make(name="  ")
check("a blank name becomes one", a["name"] == "Unnamed API Key" and a["rate_limit"] == 36000 and a["allowed_ips"] == [], a)
for name, change, reason in (("expired", "expires_at = now()", "expired"), ("revoked", "revoked_at = now()", "revoked"),
                             ("of another address", "allowed_ips = '{192.0.2.0/24}'", "address")):
    k = make()
    sql(f"UPDATE api_keys SET {change} WHERE id = '{uuid_of(k['id'])}'")
    a, b = with_key(k["key"], "GET", "/v1/capsules"), with_key(k["key"], "GET", "/v1/capsules")
    check(f"a key that is {name} is refused", a.status == b.status == 401, a)
    rows = sql(f"SELECT string_agg(metadata->>'reason', ' ') FROM audit_logs WHERE action = 'use_denied' AND resource_id = '{k['id']}'")
    check("… with one row", rows == reason, rows)
k = make(allowed_ips=["127.0.0.0/8", "::1"])
check("from its network it works", with_key(k["key"], "GET", "/v1/capsules").status == 200 and k["allowed_ips"] == ["127.0.0.0/8", "::1/128"], k)
a = call("GET", "/v1/capsules", None, {"X-API-Key": "htc_" + "0" * 40, "Authorization": f"Bearer {ada.token}"})
check("a bad key beside a good token is 401", a.status == 401, a)
k = make()
a = call("GET", "/v1/capsules", None, {"X-API-Key": "e2b_" + k["key"].split("_")[1]})
check("the word before the digits is decoration", a.status == 200, a)


def lookups():
    return int(sql("SELECT coalesce(sum(idx_scan), 0) FROM pg_stat_user_indexes WHERE indexrelname = 'api_keys_key_hash_key'"))


before = lookups()
bad = 0
for i in range(300):
    digits = secrets.token_hex(16)
    crc = f"{zlib.crc32(digits.encode()):08x}"
    wrong = f"{int(crc, 16) ^ (1 + secrets.randbelow(2 ** 32 - 1)):08x}"
    bad += with_key(f"htc_{digits}{wrong}", "GET", "/v1/capsules").status == 401
sql("SELECT pg_stat_clear_snapshot()")
# backends tell their counts late, so some of the requests before may be among them
check("300 made-up keys: refused without a look-up", bad == 300 and lookups() - before < 150, (bad, before, lookups()))
dump = sql(f"SELECT count(*) FROM (SELECT to_jsonb(k)::text AS row FROM api_keys k UNION ALL SELECT to_jsonb(a)::text FROM audit_logs a "
           f"UNION ALL SELECT to_jsonb(e)::text FROM events e UNION ALL SELECT to_jsonb(j)::text FROM jobs j UNION ALL "
           f"SELECT to_jsonb(i)::text FROM idempotency_keys i) x WHERE row LIKE '%{k['key'].split('_')[1]}%'")
check("no table holds the digits", dump == "0", dump)
k = make(rate_limit=3)
got = [with_key(k["key"], "GET", "/v1/capsules") for _ in range(5)]
check("its own limit", [g.status for g in got] == [200] * 3 + [429] * 2 and int(got[-1].headers["Retry-After"]) > 60, got)
check("… is told once", sql(f"SELECT count(*) FROM audit_logs WHERE resource_id = '{k['id']}' AND metadata->>'reason' = 'rate'") == "1")

# ---- rotation, narrowing (row 28)

k = make(scopes=["capsules.view", "capsules.create"], allowed_ips=["127.0.0.0/8"], expires_in=86400)
a = ada("POST", f"/v1/api-keys/{k['id']}/rotate", {"overlap": 60})
new = a.json
check("rotate: the same settings, other digits", a.status == 201 and new["scopes"] == k["scopes"] and new["allowed_ips"] == k["allowed_ips"]
      and new["key"] != k["key"] and new["created_by"] == ada.id, a)
check("within the overlap both work", [with_key(x["key"], "GET", "/v1/capsules").status for x in (k, new)] == [200, 200])
check("the old one names the new one", ada("GET", f"/v1/api-keys/{k['id']}").json["rotated_to"] == new["id"])
check("a second time: 409", ada("POST", f"/v1/api-keys/{k['id']}/rotate", {"overlap": 60}).code == "invalid_state")
sql(f"UPDATE api_keys SET expires_at = expires_at - interval '61 seconds' WHERE id = '{uuid_of(k['id'])}'")
check("after it only the new one", [with_key(x["key"], "GET", "/v1/capsules").status for x in (k, new)] == [401, 200])
k = make()
got = together(*[lambda: ada("POST", f"/v1/api-keys/{k['id']}/rotate", {})] * 8)
check("eight rotations at once: one", sorted(g.status for g in got) == [201] + [409] * 7, [g.status for g in got])
check("without overlap the old one ends at once", with_key(k["key"], "GET", "/v1/capsules").status == 401)
k = make(scopes=["capsules.view", "capsules.create"], allowed_ips=["10.0.0.0/8"], expires_in=1000)
path = f"/v1/api-keys/{k['id']}"
for bad in ({"scopes": ["capsules.view", "capsules.delete"]}, {"expires_at": "2099-01-01T00:00:00Z"}, {"allowed_ips": []}, {"allowed_ips": ["11.0.0.0/16"]},
            {"allowed_ips": ["10.0.0.0/7"]}, {"allowed_ips": ["::/0"]}):
    a = ada("PATCH", path, bad)
    check(f"refused: wider: {bad}", a.status == 400, a)
a = ada("PATCH", path, {"name": "less", "scopes": ["capsules.view"], "allowed_ips": ["10.1.0.0/16"], "rate_limit": 10})
check("narrower: done", a.status == 200 and (a.json["name"], a.json["scopes"], a.json["allowed_ips"]) == ("less", ["capsules.view"], ["10.1.0.0/16"]), a)
check("… and told", audit(ada.team, f"resource_id = '{k['id']}'")[-1] == "api_key/update")
check("nothing asked: nothing told", ada("PATCH", path, {}).status == 200 and len(audit(ada.team, f"resource_id = '{k['id']}' AND action = 'update'")) == 1)
a = ada("POST", f"{path}/revoke")
check("revoke keeps the row", a.status == 200 and a.json["state"] == "revoked" and ada("POST", f"{path}/revoke").code == "invalid_state", a)
check("a revoked key changes no more", ada("PATCH", path, {"name": "x"}).code == "invalid_state")
once = [ada("POST", "/v1/api-keys", {"name": "once"}, Idempotency_Key=f"once-{RUN}") for _ in range(2)]
check("made twice with one Idempotency-Key: the same key, one row", once[0].json["key"] == once[1].json["key"]
      and sql(f"SELECT count(*) FROM api_keys WHERE name = 'once' AND team_id = '{uuid_of(ada.team)}'") == "1", once)

# ---- how many

carl = Person("carl")
sql(f"INSERT INTO api_keys (id, team_id, kind, created_by, name, key_hash, key_prefix, scopes) SELECT gen_random_uuid(), '{uuid_of(carl.team)}', 'personal', "
    f"'{uuid_of(carl.id)}', 'x', sha256(random()::text::bytea), 'htc_', '{{capsules.view}}' FROM generate_series(1, 22)")
got = together(*[lambda: carl("POST", "/v1/api-keys", {"name": "k"})] * 6)
check("at most 25 live keys a user, also at once", sorted(g.status for g in got) == [201] * 3 + [403] * 3, got)
carl.login(carl("POST", "/v1/teams", {"name": "Second"}).json["id"])
check("… in all teams together", carl("POST", "/v1/api-keys", {"name": "k"}).code == "quota_exceeded")
check("… which is told", {g.code for g in got} == {"", "quota_exceeded"})

# ---- at the gateway: the same keys, counted by the same limit; a capsule that is not there is enough

ABSENT = "/v1/capsules/cl-" + "0" * 24 + "1"


def at_gateway(key):
    return with_key(key, "POST", ABSENT + "/exec", {"command": "true"})


def denials(k):
    return sql(f"SELECT string_agg(metadata->>'reason', ' ' ORDER BY seq) FROM audit_logs WHERE action = 'use_denied' AND resource_id = '{k['id']}'")


used = make(allowed_ips=["127.0.0.0/8", "::1"])
a = at_gateway(used["key"])
check("gateway: a good key from its network finds no such capsule", a.status == 404, a)
at_gateway(used["key"])
for name, change, reason in (("of another address", "allowed_ips = '{192.0.2.0/24}'", "address"), ("revoked", "revoked_at = now()", "revoked")):
    k = make()
    sql(f"UPDATE api_keys SET {change} WHERE id = '{uuid_of(k['id'])}'")
    got = [at_gateway(k["key"]).status for _ in range(2)]
    check(f"gateway: a key that is {name} is refused, with one row", got == [401, 401] and denials(k) == reason, (got, denials(k)))
k = make(scopes=["capsules.view"])
got = [at_gateway(k["key"]).status for _ in range(3)]
check("gateway: beyond its scope 403, with one row", got == [403] * 3 and denials(k) == "scope", (got, denials(k)))
k = make(rate_limit=2)
got = [with_key(k["key"], "GET", "/v1/capsules").status] + [at_gateway(k["key"]) for _ in range(3)]
check("gateway: its own limit, shared with the API", [got[0]] + [g.status for g in got[1:]] == [200, 404, 429, 429]
      and int(got[-1].headers["Retry-After"]) > 60, got)
check("gateway: … is told once", denials(k) == "rate", denials(k))

# ---- use: counted in the processes, written down every 30 s or when they end

if "HUTCH_RUN" in os.environ:
    import glob
    import signal
    import time
    for pid in glob.glob(os.environ["HUTCH_RUN"] + "/pid/api*") + glob.glob(os.environ["HUTCH_RUN"] + "/pid/gateway*"):
        os.kill(int(open(pid).read().split()[0]), signal.SIGHUP)
    k, u = new, {"total": 0}
    deadline = time.time() + 180
    while time.time() < deadline and u["total"] < 2:  # each process writes its own
        u = ada("GET", f"/v1/api-keys/{k['id']}/usage").json
        time.sleep(0.3)
    check("what it was used for", u["by_route"] == [{"route": "GET /v1/capsules", "requests": 2}] and u["by_status"] == [{"status": "200", "requests": 2}]
          and len(u["points"]) in (1, 2) and sum(p["requests"] for p in u["points"]) == 2 and u["last_24h"] == u["total"] == 2, u)
    u = {"total": 0}
    while time.time() < deadline and u["total"] < 2:
        u = ada("GET", f"/v1/api-keys/{used['id']}/usage").json
        time.sleep(0.3)
    check("what it was used for at the gateway", u["by_route"] == [{"route": "POST /v1/capsules/{id}/exec", "requests": 2}]
          and u["by_status"] == [{"status": "404", "requests": 2}], u)
    check("when and where it was used last there", sql(f"SELECT last_used_at IS NOT NULL AND last_used_ip IS NOT NULL FROM api_keys WHERE id = "
                                                       f"'{uuid_of(used['id'])}'") == "t")
    check("when it was used last", ada("GET", f"/v1/api-keys/{k['id']}").json.get("last_used"))
check("use over too long a time is refused", ada("GET", f"/v1/api-keys/{new['id']}/usage?from=2020-01-01T00:00:00Z").status == 400)
end()
