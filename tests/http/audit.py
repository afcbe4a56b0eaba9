#!/usr/bin/env python3
"""audit.py - the audit log by its routes: pages, filters, scopes, export, verify: spec 01 §8 rows 37, 38, parts of 39.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB.
"""
import csv
import io
import json
import sys
import urllib.parse

sys.dont_write_bytecode = True
from crew import Person, RUN, audit, call, check, end, sql, uuid_of, with_key

ada = Person("ada")
member, auditor = Person("m").into(ada, "member"), Person("u").into(ada, "auditor")
team = uuid_of(ada.team)
first = len(audit(ada.team))
sql(f"SELECT audit_append(gen_random_uuid(), '{team}', 'user', 'usr-x', 'Ann', NULL, NULL, CASE n % 3 WHEN 0 THEN 'alpha' WHEN 1 THEN 'beta' ELSE 'gamma' END, "
    f"'r' || n, CASE n % 2 WHEN 0 THEN 'create' ELSE 'delete' END, CASE n % 2 WHEN 0 THEN 'thing.created' END, "
    f"CASE n % 5 WHEN 0 THEN 'admin' ELSE 'team' END, 'info', jsonb_build_object('n', n), '192.0.2.' || (n % 4), 'curl', 'q' || n) FROM generate_series(1, 300) n")


def get(who, path="", **query):
    return who("GET", "/v1/audit-logs" + path + ("?" + urllib.parse.urlencode(query, doseq=True) if query else ""))


def walk(who, how, limit=7, **query):
    """Every row, page by page."""
    ids, more = [], {}
    for _ in range(200):
        page = get(who, limit=limit, **query, **more).json
        if not page["items"]:
            return ids
        ids += [i["id"] for i in page["items"]]
        more = {"cursor": page["next_cursor"]} if how == "cursor" else {"before": page["next_before"], "before_id": page["next_before_id"]}
    raise SystemExit("no end")


# ---- pages (row 37)

total = len(audit(ada.team))
for how in ("before", "cursor"):
    ids = walk(ada, how)
    check(f"pages of 7 by {how}: each row once", len(ids) == len(set(ids)) == total, (len(ids), len(set(ids)), total))
rows = get(ada, limit=200).json["items"]
check("newest first, without gaps", [r["seq"] for r in rows] == list(range(rows[0]["seq"], rows[0]["seq"] - 200, -1)))
check("created_at has six decimals", all(len(r["created_at"]) == 27 and r["created_at"].endswith("Z") for r in rows), rows[0])
check("limits are lenient", [len(get(ada, limit=n).json["items"]) for n in (-1, 0, 500)] == [50, 50, 200] and get(ada, limit="x").status == 400)
check("50 unless asked", len(get(ada).json["items"]) == 50)
for bad in ({"before": "yesterday"}, {"before_id": "log-1"}, {"cursor": "made-up"}, {"ip": "here"}, {"scope": "all"}, {"from": "x"}):
    check(f"refused: {bad}", get(ada, **bad).status == 400)

# ---- filters

both = walk(ada, "before", 50, resource_type="alpha,beta")
check("commas and repetition are one", both == walk(ada, "before", 50, resource_type=["alpha", "beta"]) and len(both) == 200, len(both))
check("OR within, AND between", len(walk(ada, "cursor", 50, resource_type="alpha", action="create,login")) == 50)
check("event names are actions, too", len(walk(ada, "cursor", 50, action="thing.created")) == 150)
check("by network", len(walk(ada, "cursor", 50, ip="192.0.2.0/31")) == 150 and len(walk(ada, "cursor", 50, ip="192.0.2.3")) == 75)
check("by request, resource, status, actor", [len(walk(ada, "cursor", 50, **q)) for q in (
    {"request_id": "q7"}, {"resource_id": "r7"}, {"status": "error"}, {"actor_id": "usr-x"}, {"actor_type": "system"})] == [1, 1, 0, 300, 0])
middle = rows[100]["created_at"]
check("by time", len(walk(ada, "cursor", 50, **{"from": middle})) == 101 and len(walk(ada, "cursor", 50, to=middle)) == total - 101)

# ---- scopes: by the membership row, and by row-level security

mine = walk(member, "cursor", 50, actor_id="usr-x")
check("a member sees scope team only", len(mine) == 240 and not set(mine) - set(walk(ada, "cursor", 50, scope="team")), len(mine))
check("… whatever he asks for", get(member, scope="admin").json["items"] == [])
check("an auditor sees both", len(walk(auditor, "cursor", 50, actor_id="usr-x")) == 300)
sql(f"UPDATE users_teams SET role = 'viewer' WHERE team_id = '{team}' AND user_id = '{uuid_of(auditor.id)}'")
check("… until his row says otherwise", len(walk(auditor, "cursor", 50, actor_id="usr-x")) == 240)
sql(f"UPDATE users_teams SET role = 'auditor' WHERE team_id = '{team}' AND user_id = '{uuid_of(auditor.id)}'")
for role, want in (("member", 240), ("viewer", 240), ("auditor", 300), ("admin", 300), ("owner", 300), ("", 240)):
    n = sql(f"SET ROLE hutch_app; SET hutch.team = '{team}'; SET hutch.role = '{role}'; SELECT count(*) FROM audit_logs WHERE actor_id = 'usr-x'")
    check(f"the database itself shows {role or 'nobody'} {want} rows", n == str(want), n)
wide, narrow = (ada("POST", "/v1/api-keys", {"name": "k", "scopes": s}).json["key"] for s in (["audit.view"], ["capsules.view"]))
check("a key needs the scope audit.view", with_key(wide, "GET", "/v1/audit-logs?scope=admin&actor_id=usr-x").json["items"]
      and with_key(narrow, "GET", "/v1/audit-logs").status == 403)
check("who is not in a team reads none", Person("o")("GET", f"/v1/audit-logs?actor_id=usr-x").json["items"] == [])

# ---- counts

s = get(ada, "/stats").json
check("counts", s["total"] == len(audit(ada.team)) and s["last_24h"] == s["total"] and {"status": "info", "count": 300} in
      [{**x, "count": 300} for x in s["by_status"]] and s["by_action"][0]["count"] == 50, s)
check("a member's counts are of his scope", get(member, "/stats").json["total"] < s["total"])
check("… of at most 90 days", get(ada, "/stats", **{"from": "2020-01-01T00:00:00Z"}).status == 400)

# ---- export

for text in ("=1+1", "+1", "-1", "@x", "\tx", 'a"b', "plain"):
    sql(f"SELECT audit_append(gen_random_uuid(), '{team}', 'user', 'usr-y', E'{text}', NULL, NULL, 'cell', 'r', 'create', NULL, 'team', 'info', '{{}}', NULL, NULL, NULL)")
a = get(auditor, "/export", resource_type="cell")
cells = [r["actor_name"] for r in csv.DictReader(io.StringIO(a.raw.decode()))]
check("CSV cells are no formulas", a.headers["Content-Type"].startswith("text/csv") and sorted(cells) == sorted(
    ["'=1+1", "'+1", "'-1", "'@x", "'\tx", 'a"b', "plain"]), cells)
a = get(ada, "/export", format="ndjson", actor_id="usr-x")
lines = [json.loads(x) for x in a.raw.decode().splitlines()]
check("NDJSON is the same rows", [x["id"] for x in lines] == walk(ada, "cursor", 200, actor_id="usr-x"), len(lines))
check("exports are in the log", audit(ada.team, "resource_type = 'audit'") == ["audit/export"] * 2)
check("not for members", get(member, "/export").status == 403 and get(member, "/verify").status == 403)
sql(f"SELECT count(audit_append(gen_random_uuid(), '{team}', 'system', NULL, '', NULL, NULL, 'bulk', NULL, 'create', NULL, 'team', 'info', '{{}}', NULL, NULL, NULL)) "
    f"FROM generate_series(1, 2500)")
a = get(ada, "/export", format="ndjson", resource_type="bulk")
seqs = [json.loads(x)["seq"] for x in a.raw.decode().splitlines()]
check("an export of several pieces: each row once", len(seqs) == len(set(seqs)) == 2500 and seqs == sorted(seqs, reverse=True), len(seqs))

# ---- verify

a = get(ada, "/verify").json
check("an honest chain", a["ok"] and a["checkpoints_ok"] and a["checked"] == a["head"]["seq"] == len(audit(ada.team)) and a["public_keys"], a)
check("a part of it", get(ada, "/verify", from_seq=5, to_seq=9).json["checked"] == 5)
check("not too much at once", get(ada, "/verify", from_seq=1, to_seq=30000).status == 400)
was = sql(f"SELECT action FROM audit_logs WHERE team_id = '{team}' AND seq = 7")
sql(f"SET session_replication_role = replica; UPDATE audit_logs SET action = 'x' WHERE team_id = '{team}' AND seq = 7")
a = get(ada, "/verify").json
check("a changed row is found", not a["ok"] and a["first_bad"] == 7, a)
sql(f"SET session_replication_role = replica; UPDATE audit_logs SET action = '{was}' WHERE team_id = '{team}' AND seq = 7")

# ---- the platform's log (row 38)

root = Person("root")
sql(f"UPDATE users SET platform_role = 'admin' WHERE email = '{root.email}'")
call("POST", "/v1/auth/login", {"email": ada.email, "password": "wrong, certainly"}, {"X-Request-Id": f"fail-{RUN}", "User-Agent": "row38"})
a = root("GET", f"/v1/admin/audit-logs?request_id=fail-{RUN}").json["items"]
check("a failed login is in the platform's log with ip, agent, request id", len(a) == 1 and a[0]["action"] == "login_failed" and a[0]["ip"]
      and a[0]["user_agent"] == "row38", a)
root.login()
logged = audit(root.team)
h = root("POST", "/v1/hosts", {"name": f"row38-{RUN}"}, X_Request_Id=f"host-{RUN}", User_Agent="row38")
check("an administrator makes a shared host", h.status == 201, h)
gone = root("DELETE", f"/v1/hosts/{h.json['host']['id']}", X_Request_Id=f"host-{RUN}", User_Agent="row38")
check("… and deletes it", gone.status in (200, 202, 204), gone)
a = root("GET", f"/v1/admin/audit-logs?request_id=host-{RUN}").json["items"]
check("… both are in the Platform's log, with ip, agent, actor", [(i["resource_type"], i["action"], i["actor_id"], i["user_agent"], bool(i["ip"])) for i in a]
      == [("host", x, root.id, "row38", True) for x in ("delete", "create")], a)
check("… and nothing in his team's", audit(root.team) == logged, audit(root.team))
other = ada("POST", "/v1/teams", {"name": "Short"}).json["id"]
ada.login(other)
gone = ada("DELETE", f"/v1/teams/{other}", X_Request_Id=f"team-{RUN}", User_Agent="row38")
row = sql(f"SELECT resource_type, action, actor_id, host(ip) IS NOT NULL, user_agent FROM audit_logs WHERE request_id = 'team-{RUN}'")
check("an owner deletes a team: a row with ip, agent, request id", gone.status == 204 and f"team|delete|{ada.id}|t|row38" in row.split("\n"), (gone, row))
ada.login()
check("another team's log", root("GET", f"/v1/admin/audit-logs?team_id={ada.team}&limit=1").json["items"][0]["team_id"] == ada.team)
a = root("GET", "/v1/admin/audit-logs?team_id=all&limit=200&user_id=" + ada.id).json["items"]
check("all logs about a person", {i["team_id"] for i in a} >= {ada.team} and len({i["team_id"] for i in a}) > 1, len(a))
check("counts and verify of the platform", root("GET", "/v1/admin/audit-logs/stats?team_id=all").json["total"] > 300
      and root("GET", "/v1/admin/audit-logs/verify").json["head"]["seq"] > 0)
check("export of the platform's", b"login_failed" in root("GET", f"/v1/admin/audit-logs/export?request_id=fail-{RUN}").raw)
check("refused: a team that is none", root("GET", "/v1/admin/audit-logs?team_id=x").status == 400)
check("not for others", ada("GET", "/v1/admin/audit-logs").status == 403)
end()
