#!/usr/bin/env python3
"""admin.py - administration of the platform: guards under races, answers without tokens or secrets, rows where they belong (spec 01 §2.8)."""
import glob
import json
import tempfile
import threading
import time

from people import OTHER, PASSWORD, House, wait_for
from private import Report
from s3 import S3

s3 = S3(tempfile.mkdtemp(prefix="hutch-s3-", dir="/tmp"))
h = House(storage={"private_networks": "127.0.0.0/8", "ca_file": s3.ca}, workers={"capsule_slots": 0, "tick_slots": 0}).open()
r = Report()
answers = []  # of everything: no secret may stand in one


def ask(who, *args, **headers):
    a = who(*args, **headers)
    answers.append(a.text)
    return a


def at_once(*calls):
    out, threads = [None] * len(calls), []
    for i, c in enumerate(calls):
        threads.append(threading.Thread(target=lambda i=i, c=c: out.__setitem__(i, c())))
    [t.start() for t in threads]
    [t.join() for t in threads]
    return out


def sole_admin():
    root = h.root
    for name, a in (("PATCH", ask(root, "PATCH", "/v1/admin/users/" + root.id, {"platform_role": "user"})),
                    ("/v1/me", ask(root, "DELETE", "/v1/me", {"confirmation": root.email}))):
        r.check("the sole administrator, %s: 409 last_admin" % name, a.code == "last_admin", a)
    a = ask(root, "PUT", "/v1/admin/users/%s/active" % root.id, {"active": False})
    r.check("himself disabled: 400", a.status == 400, a)
    a = ask(root, "DELETE", "/v1/admin/users/" + root.id)
    r.check("himself deleted here: 400", a.status == 400, a)
    gone = h.ctl("user", "disable", "--email", root.email, ok=False)
    r.check("hutchctl user disable: refused, too", gone.returncode == 1 and "last active" in gone.stderr, gone.stderr)
    gone = h.ctl("admin", "demote", "--email", root.email, ok=False)
    r.check("hutchctl admin demote: refused, too", gone.returncode == 1, gone.stderr)


def races(rounds=50):
    """Two administrators disable, demote, delete each other at once: one stays, each time."""
    h.super("UPDATE users SET platform_role = 'user' WHERE email <> 'root@house.test'")
    a, b = h.person("adam", "admin"), h.person("berta", "admin")
    h.super("UPDATE users SET status = 'disabled' WHERE email = 'root@house.test'")
    least, codes = 9, {}
    ways = [lambda x, y: x("PUT", "/v1/admin/users/%s/active" % y.id, {"active": False}),
            lambda x, y: x("PATCH", "/v1/admin/users/" + y.id, {"platform_role": "user"}),
            lambda x, y: x("DELETE", "/v1/admin/users/" + y.id)]
    for i in range(rounds):
        way = ways[i % 3]
        for c in at_once(lambda: way(a, b), lambda: way(b, a)):
            codes[c.status] = codes.get(c.status, 0) + 1
        least = min(least, int(h.sql("SELECT count(*) FROM users WHERE platform_role = 'admin' AND status = 'active'")))
        h.super("UPDATE users SET status = 'active', platform_role = 'admin', deleted_at = NULL, purge_after = NULL, deleted_from = NULL "
                "WHERE id IN ('%s', '%s'); UPDATE login_sessions SET revoked_at = NULL, auth_at = now(); UPDATE teams SET deleted_at = NULL; "
                "UPDATE jobs SET state = 'cancelled', finished_at = now() WHERE kind IN ('user.purge','team.purge') AND state = 'queued'" % (a.uuid, b.uuid))
    r.check("%d races: never without an administrator, no 5xx" % rounds, least == 1 and not [c for c in codes if c >= 500], (least, codes))
    h.super("UPDATE users SET status = 'active' WHERE email = 'root@house.test'; UPDATE users SET platform_role = 'user' WHERE email <> 'root@house.test'")


def made_by_admin():
    a = ask(h.root, "POST", "/v1/admin/users", {"email": "nora@house.test", "name": "Nora", "password": OTHER, "teams": [{"id": h.root.team_id, "role": "member"}]})
    r.check("an account by an admin: 201, active, password to be changed", a.status == 201 and a.json["must_change_password"] and a.json["status"] == "active", a)
    again = ask(h.root, "POST", "/v1/admin/users", {"email": "Nora@House.Test", "name": "Nora"})
    r.check("its address again: 409 email_taken", again.code == "email_taken", again)
    token = h.api.login("nora@house.test", OTHER)
    call = lambda *x: h.api.call(*x, token=token)
    r.check("the login works, everything else waits for a new password", isinstance(token, str) and call("GET", "/v1/me").status == 200 and
            call("GET", "/v1/teams").code == call("POST", "/v1/api-keys", {}).code == "password_change_required", (token, call("GET", "/v1/me"), call("GET", "/v1/teams"), call("POST", "/v1/api-keys", {})))
    p = call("POST", "/v1/me/password", {"current_password": OTHER, "new_password": PASSWORD})
    r.check("changed: all is open", p.status == 204 and call("GET", "/v1/teams").status == 200, (p, call("GET", "/v1/teams")))
    b = ask(h.root, "POST", "/v1/admin/users", {"email": "link@house.test", "name": "Lin K"})
    mail = h.sql("SELECT count(*) FROM emails WHERE template = 'set_password' AND to_addr = 'link@house.test'")
    r.check("without a password: a mail with a link", b.status == 201 and not b.json["has_password"] and mail == "1", b)
    bad = ask(h.root, "POST", "/v1/admin/users", {"email": "x@house.test", "name": "X", "teams": [{"id": "team-" + "0" * 24 + "1"}]})
    r.check("into a team that is not there: 404, and no account", bad.status == 404 and h.sql("SELECT count(*) FROM users WHERE email = 'x@house.test'") == "0", bad)
    return a.json["id"]


def reset(nora):
    n = int(h.sql("SELECT count(*) FROM emails WHERE template = 'password_reset_link'"))
    a = ask(h.root, "POST", "/v1/admin/users/%s/password-reset" % nora)
    rows = h.audit("action = 'password_reset_sent'")
    r.check("password-reset: 202 without a token, a row, one mail", a.status == 202 and a.json == {"status": "queued"} and len(rows) == 1 and
            int(h.sql("SELECT count(*) FROM emails WHERE template = 'password_reset_link'")) == n + 1, a)
    worker = h.start_worker()
    text = lambda: "".join(open(f, "rb").read().replace(b"=\r\n", b"").decode() for f in glob.glob(h.dir + "/mail/*.eml"))
    r.check("the mails have their links", wait_for(lambda: text().count("/reset-password#token=3D") >= 4, 8), text()[-500:])
    h.stop_worker(worker)
    nora_token = h.api.login("nora@house.test", PASSWORD)
    out = ask(h.root, "POST", "/v1/admin/users/%s/logout" % nora)
    r.check("logout: her token is dead", out.status == 204 and h.api.call("GET", "/v1/me", token=nora_token).status == 401, out)
    off = ask(h.root, "PATCH", "/v1/admin/users/%s/status" % nora, {"status": "disabled", "reason": "left"})
    no = ask(h.root, "POST", "/v1/admin/users/%s/password-reset" % nora)
    r.check("disabled: no reset, 409", off.status == 200 and no.code == "invalid_state", no)
    ask(h.root, "PATCH", "/v1/admin/users/%s/status" % nora, {"status": "active"})
    h.super("UPDATE login_sessions SET auth_at = now() - interval '1 hour'")
    stale = [ask(h.root, "DELETE", "/v1/admin/users/%s/mfa" % nora), ask(h.root, "DELETE", "/v1/admin/users/" + nora),
             ask(h.root, "PATCH", "/v1/admin/users/" + nora, {"platform_role": "operator"})]
    r.check("without a recent proof: 403 reauth_required", all(x.code == "reauth_required" for x in stale), stale)
    h.super("UPDATE login_sessions SET auth_at = now()")
    mfa = ask(h.root, "DELETE", "/v1/admin/users/%s/mfa" % nora)
    r.check("factors removed: 204, a row", mfa.status == 204 and len(h.audit("action = 'mfa_reset'")) == 1, mfa)
    p = h.person("petra")
    h.super("INSERT INTO mfa_factors (id, user_id, type, name, secret_enc, verified_at) VALUES (gen_random_uuid(), '%s', 'totp', 'x', 'x', now())" % p.uuid)
    mfa = h.ctl("user", "reset-mfa", "--email", p.email, ok=False)
    left = h.sql("SELECT (SELECT count(*) FROM mfa_factors WHERE user_id = '%s'), (SELECT count(*) FROM login_sessions WHERE user_id = '%s' AND revoked_at IS NULL)" % (p.uuid, p.uuid))
    r.check("hutchctl user reset-mfa: no factor, no login, a row", mfa.returncode == 0 and left == "0|0" and len(h.audit("action = 'mfa_reset'")) == 2 and
            p("GET", "/v1/me").status == 401, (mfa.stderr, left))


def rights():
    op, user = h.person("opal", "operator"), h.person("ute")
    ids = h.root.id
    for method, path, body in (("GET", "/v1/admin/users", None), ("GET", "/v1/admin/users/" + ids, None), ("GET", "/v1/admin/teams", None),
                               ("GET", "/v1/admin/users/%s/delete-preview" % ids, None)):
        r.check("%s %s: operators read, users do not" % (method, path.replace(ids, "{id}")), op(method, path, body).status == 200 and
                user(method, path, body).status == 403 and h.api.call(method, path, body).status == 401, op(method, path, body))
    for method, path, body in (("POST", "/v1/admin/users", {"email": "q@q.test", "name": "Q"}), ("DELETE", "/v1/admin/users/" + user.id, None),
                               ("PATCH", "/v1/admin/users/" + user.id, {"name": "Z"}), ("DELETE", "/v1/admin/teams/" + user.team_id, None)):
        r.check("%s %s: not by operators" % (method, path.split("/usr-")[0].split("/team-")[0]), op(method, path, body).status == 403)
    for path in ("/v1/admin/users/%s/impersonate" % ids, "/v1/admin/impersonate"):
        r.check("%s does not exist" % path.replace(ids, "{id}"), h.root("POST", path, {}).status in (404, 405))


def lists():
    h.super("INSERT INTO users (id, source, email, name, status, webauthn_handle, activated_at, created_at) SELECT gen_random_uuid(), 'cli', 'm' || n || '@mass.test', "
            "'Mass', 'active', sha256(n::text::bytea) || sha256(('y' || n)::bytea), now(), now() - n * interval '1 minute' FROM generate_series(1, 230) n")
    seen, path = [], "/v1/admin/users?q=m&source=cli"
    while path:
        a = h.root("GET", path)
        seen += [u["id"] for u in a.json["users"]]
        cursor = a.headers.get("x-next-cursor")
        path = "/v1/admin/users?q=m&source=cli&cursor=" + cursor if cursor else None
    r.check("pages by cursor: each once", len(seen) == len(set(seen)) == a.json["total"] == 230 and a.json["total_pages"] == 3, (len(seen), a.json["total"]))
    two = h.root("GET", "/v1/admin/users?q=m&source=cli&page=2").json
    r.check("pages by number", [u["id"] for u in two["users"]] == seen[100:200] and two["page"] == 2)
    r.check("a bad page is the first, beyond 100 is 400", h.root("GET", "/v1/admin/users?page=x").json["page"] == 1 and
            h.root("GET", "/v1/admin/users?page=101").status == 400)
    mails = [u["email"] for u in h.root("GET", "/v1/admin/users?q=m1&sort=email").json["users"]]
    r.check("by address", mails == sorted(mails) and len(mails) > 100 - 1)
    teams = h.root("GET", "/v1/admin/teams").json
    r.check("teams without the Platform team", teams["total"] == len(teams["teams"]) and all(t["slug"] != "platform" for t in teams["teams"]))


def teams():
    o = h.person("otis")
    a = ask(h.root, "PATCH", "/v1/admin/teams/" + o.team_id, {"name": "Renamed", "kind": "project"})
    r.check("a team renamed: rows in P and in the team", a.status == 200 and a.json["name"] == "Renamed" and
            {x[0] for x in h.audit("action = 'rename' AND resource_type = 'team'")} == {o.team, "00000000-0000-0000-0000-000000000000"}, a)
    r.check("the Platform team stays: 403 platform_team", ask(h.root, "DELETE", "/v1/admin/teams/team-" + "0" * 25).code == "platform_team")
    n = len(h.audit("action = 'set_byoc'"))
    b = [ask(h.root, "PUT", "/v1/admin/teams/%s/byoc" % o.team_id, {"enabled": True}).status for _ in range(2)]
    r.check("byoc, twice: 204, one row", b == [204, 204] and len(h.audit("action = 'set_byoc'")) == n + 1, b)
    h.super("INSERT INTO hosts (id, type, team_id, name) VALUES (gen_random_uuid(), 'byoc', '%s', 'own')" % o.team)
    c = ask(h.root, "PUT", "/v1/admin/teams/%s/byoc" % o.team_id, {"enabled": False})
    r.check("off while it has hosts: 409 has_byoc_hosts", c.code == "has_byoc_hosts", c)
    ask(h.root, "PUT", "/v1/admin/users/%s/active" % o.id, {"active": False})
    frozen = h.root("GET", "/v1/admin/teams/" + o.team_id).json["frozen"]
    named = ask(h.root, "PUT", "/v1/admin/teams/%s/owner" % o.team_id, {"user_id": h.root.id})
    r.check("a frozen team thaws with an owner that is named", frozen and named.status == 204 and not h.root("GET", "/v1/admin/teams/" + o.team_id).json["frozen"], named)
    d = ask(h.root, "DELETE", "/v1/admin/teams/" + o.team_id)
    rows = h.rows("SELECT team_id, host(ip), user_agent, request_id <> '' FROM audit_logs WHERE action = 'delete' AND resource_id = '%s'" % o.team_id)
    r.check("deleted by an admin: rows in T and P, with address, agent and request", d.status == 204 and len(rows) == 2 and
            all(x[1:] == ["192.0.2.7", "canary-agent/1", "t"] for x in rows) and {x[0] for x in rows} == {o.team, "00000000-0000-0000-0000-000000000000"}, rows)
    r.check("deleted before: 404", ask(h.root, "DELETE", "/v1/admin/teams/" + o.team_id).status == 404)
    w = h.person("wilma")
    w("DELETE", "/v1/teams/" + w.team_id)
    rows = h.rows("SELECT team_id, host(ip), request_id <> '' FROM audit_logs WHERE resource_type = 'team' AND action = 'delete' AND team_id <> '%s' "
                  "ORDER BY created_at DESC LIMIT 1" % o.team)
    r.check("deleted by its owner: a row in the team alone", rows == [[w.team, "192.0.2.7", "t"]], rows)


def storage():
    o, m = h.person("sara"), h.person("sven")
    h.join(o.team, m.uuid, "viewer")
    wrong = ask(o, "POST", "/v1/storage/connections", s3.connection(secret_access_key="not the secret"))
    r.check("a connection is tested first: 400 with the failed check", wrong.status == 400 and '"put"' in wrong.json["error"]["message"].replace("\\", ""), wrong)
    s3.fail = lambda method, path: method == "DELETE"
    wrong = ask(o, "POST", "/v1/storage/connections", s3.connection())
    s3.fail = None
    r.check("one that cannot delete: 400, nothing stored", "delete" in wrong.json["error"]["message"] and h.sql("SELECT count(*) FROM storage_connections") == "0", wrong)
    for bad in ({"endpoint": "http://127.0.0.1"}, {"endpoint": "https://user:x@h"}, {"endpoint": "https://h/path"}, {"bucket": "a/b"}, {"prefix": "../x"}, {"prefix": "/x"}):
        a = ask(o, "POST", "/v1/storage/connections", s3.connection(**bad))
        r.check("%s: 400 names the field" % json.dumps(bad), a.status == 400 and list(bad)[0] in a.json["error"]["message"], a)
    mine = ask(o, "POST", "/v1/storage/connections", s3.connection())
    ours = ask(o, "POST", "/v1/storage/connections", s3.connection("ours", owner="team"))
    r.check("one's own and the team's: 201", mine.status == ours.status == 201 and ours.json["owner"] == "team", (mine, ours))
    r.check("its name again: 409", ask(o, "POST", "/v1/storage/connections", s3.connection()).status == 409)
    r.check("a viewer makes none", m("POST", "/v1/storage/connections", s3.connection(owner="team")).status in (201, 403))
    theirs = m("POST", "/v1/auth/switch-team", {"team_id": o.team_id}).json["token"]
    view = h.api.call("POST", "/v1/storage/connections", s3.connection("v"), theirs)
    r.check("a viewer of the team: 403; he sees neither", view.status == 403 and h.api.call("GET", "/v1/storage/connections", token=theirs).json == [] and
            h.api.call("GET", "/v1/storage/connections/" + mine.json["id"], token=theirs).status == 404, view)
    r.check("listed", [c["name"] for c in ask(o, "GET", "/v1/storage/connections").json] == ["ours", "mine"])
    p = ask(o, "PATCH", "/v1/storage/connections/" + mine.json["id"], {"name": "renamed"})
    r.check("renamed, tested again with the kept secret", p.status == 200 and p.json["name"] == "renamed" and s3.bad > 0, p)
    dump = h.super("SELECT string_agg(c::text, '') FROM storage_connections c")
    r.check("the secret stands in no table", s3.secret not in dump and s3.secret.encode().hex() not in dump)
    team = h.super("INSERT INTO objects (id, team_id, connection_id, name) VALUES (gen_random_uuid(), '%s', '%s', 'x') RETURNING id" % (o.team, h.uuid_of(mine.json["id"])))
    worker = h.start_worker()
    gone = ask(o, "DELETE", "/v1/storage/connections/%s?objects=delete" % mine.json["id"])
    r.check("deleted: 202, gone for its owner", gone.status == 202 and ask(o, "GET", "/v1/storage/connections/" + mine.json["id"]).status == 404, gone)
    end = h.ended(gone.json["job_id"])
    r.check("objects first, then the credentials", end[0] == "succeeded" and [x[0] for x in s3.seen][-1] == "DELETE" and
            h.sql("SELECT count(*) FROM storage_connections WHERE name = 'renamed'") == "0" and h.sql("SELECT count(*) FROM objects WHERE id = '%s'" % team) == "0", end)
    h.stop_worker(worker)
    r.check("no answer has the secret, a token or a hash", not [a for a in answers if s3.secret.encode() in a or b"secret" in a.lower().replace(b"secret_access_key", b"")
                                                                or b"token=" in a or b"$y$" in a or b"password_hash" in a])


for part in (sole_admin, races, rights, lists, teams, storage):
    t = time.monotonic()
    part()
    print("# %s: %.1f s" % (part.__name__, time.monotonic() - t), flush=True)
reset(made_by_admin())
s3.stop()
r.end()
