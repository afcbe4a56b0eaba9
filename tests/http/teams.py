#!/usr/bin/env python3
"""teams.py - teams, members, invitations, roles, search: spec 01 §8 rows 22-25, 29, 30.

Needs a running instance (tests/lib/instance env): HUTCH_URL, HUTCH_TEST_DB.
"""
import glob
import os
import sys

sys.dont_write_bytecode = True
from crew import Person, RUN, audit, call, check, end, sql, together, uuid_of, with_key

RACES = 50

ada, bob = Person("ada"), Person("bob")

# ---- teams

a = ada("POST", "/v1/teams", {"name": "Blue"})
blue = a.json["id"]
check("a new team belongs to who made it", a.status == 201 and a.json["role"] == "owner" and a.json["member_count"] == 1, a)
check("its slug is 6-6 hex digits", sql(f"SELECT slug ~ '^[0-9a-f]{{6}}-[0-9a-f]{{6}}$' FROM teams WHERE id = '{uuid_of(blue)}'") == "t")
check("its log begins with it", audit(blue) == ["team/create"], audit(blue))
check("a team of another token is pointed out", ada("GET", f"/v1/teams/{blue}").code == "forbidden")
ada.login(blue)
a = ada("GET", f"/v1/teams/{blue}")
check("a team with its members", a.status == 200 and [m["user_id"] for m in a.json["members"]] == [ada.id] and a.json["team"]["name"] == "Blue", a)
for bad in ({"name": ""}, {"name": "a/b"}, {"name": "x" * 129}, {}, {"name": "x", "kind": "gang"}, {"name": "x", "parent_id": "team-zz"}):
    a = ada("POST", "/v1/teams", bad)
    check(f"refused: a team {bad}", a.status == 400, a)
a = ada("PATCH", f"/v1/teams/{blue}", {"name": "Sky"})
check("rename", a.status == 204 and ada("GET", f"/v1/teams/{blue}").json["team"]["name"] == "Sky", a)
a = ada("PATCH", f"/v1/teams/{blue}", {"name": "Sky"})
check("the same name again: nothing in the log", a.status == 204 and audit(blue, "resource_type = 'team'") == ["team/create", "team/rename"], audit(blue))

line = [blue]
for i in range(4):
    a = ada("POST", "/v1/teams", {"name": f"L{i}", "parent_id": line[-1]})
    line.append(a.json["id"] if a.status == 201 else None)
check("five deep", None not in line, line)
a = ada("POST", "/v1/teams", {"name": "L5", "parent_id": line[-1]})
check("not six", a.status == 400, a)
a = ada("PATCH", f"/v1/teams/{blue}", {"parent_id": line[2]})
check("no team is its own ancestor", a.status == 400, a)
a = bob("POST", "/v1/teams", {"name": "Under", "parent_id": blue})
check("another's team is no parent", a.status == 404, a)
sql(f"INSERT INTO teams (id, name, slug) SELECT gen_random_uuid(), 'T', substr(md5(random()::text), 1, 6) || '-' || substr(md5(random()::text), 1, 6) "
    f"FROM generate_series(1, 13)")
sql(f"INSERT INTO users_teams (team_id, user_id, role, source) SELECT t.id, '{uuid_of(ada.id)}', 'owner', 'created' FROM teams t "
    f"WHERE name = 'T' AND NOT EXISTS (SELECT FROM users_teams m WHERE m.team_id = t.id) LIMIT 13")
owned = int(sql(f"SELECT count(*) FROM users_teams WHERE user_id = '{uuid_of(ada.id)}' AND role = 'owner'"))
got = together(*[lambda: ada("POST", "/v1/teams", {"name": "Many"})] * 6)
check("at most 20 teams, also at once", sorted(x.status for x in got) == [201] * (20 - owned) + [403] * (6 - 20 + owned)
      and {x.code for x in got} <= {"", "quota_exceeded"}, got)

# ---- members (row 29)

for who, change in (("inactive", "status = 'inactive'"), ("disabled", "status = 'disabled'"),
                    ("deleted", "status = 'deleted', deleted_at = now(), purge_after = now() + interval '15 days'")):
    p = Person(who)
    sql(f"UPDATE users SET {change} WHERE email = '{p.email}'")
    a = ada("POST", f"/v1/teams/{blue}/members", {"email": p.email})
    check(f"an account that is {who} cannot be added", a.status == 404, a)
a = ada("POST", f"/v1/teams/{blue}/members", {"email": f"nobody-{RUN}@x.example"})
check("nor one that is none", a.status == 404, a)
a = ada("POST", f"/v1/teams/{blue}/members", {"email": f" {bob.email.upper()} ", "role": "member"})
check("a member is added by address", a.status == 201 and a.json["user_id"] == bob.id, a)
check("joined_at is now", sql(f"SELECT abs(extract(epoch FROM now() - '{a.json['joined_at']}'::timestamptz)) < 60") == "t", a)
a = ada("POST", f"/v1/teams/{blue}/members", {"email": bob.email})
check("twice is refused", a.status == 400, a)
bob.login(blue)
check("he signs in there", bob.team == blue)
gone = Person("gone").into(ada, "viewer")
sql(f"UPDATE users SET status = 'deleted', deleted_at = now(), purge_after = now() WHERE email = '{gone.email}'")
check("deleted users are in no list", gone.id not in [m["user_id"] for m in ada("GET", f"/v1/teams/{blue}/members").json])
check("… and cannot be changed", ada("PATCH", f"/v1/teams/{blue}/members/{gone.id}", {"role": "admin"}).status == 404)

# ---- roles (row 22)

admin, member, viewer = (Person(r).into(ada, r) for r in ("admin", "member", "viewer"))
auditor = Person("auditor").into(ada, "auditor")
for who, path, body, name in (
        (admin, ada.id, {"role": "member"}, "an admin demotes the owner"), (admin, admin.id, {"role": "owner"}, "an admin makes himself owner"),
        (admin, member.id, {"role": "owner"}, "an admin names an owner"), (member, member.id, {"role": "admin"}, "a member raises himself"),
        (viewer, member.id, {"role": "viewer"}, "a viewer changes roles"), (auditor, auditor.id, {"role": "admin"}, "an auditor raises himself")):
    a = who("PATCH", f"/v1/teams/{blue}/members/{path}", body)
    check(f"refused: {name}", a.status == 403, a)
check("refused: an admin removes the owner", admin("DELETE", f"/v1/teams/{blue}/members/{ada.id}").status == 403)
check("refused: a role that is none", ada("PATCH", f"/v1/teams/{blue}/members/{bob.id}", {"role": "king"}).status == 400)
check("refused: an admin sets what is for owners", admin("PATCH", f"/v1/teams/{blue}", {"require_mfa": True}).status == 403)
check("refused: an admin deletes the team", admin("DELETE", f"/v1/teams/{blue}").status == 403)
check("refused: the last owner leaves", ada("POST", f"/v1/teams/{blue}/leave").status == 403)
check("refused: the last owner steps down", ada("PATCH", f"/v1/teams/{blue}/members/{ada.id}", {"role": "admin"}).status == 403)
check("an admin makes a member a viewer", admin("PATCH", f"/v1/teams/{blue}/members/{bob.id}", {"role": "viewer"}).status == 204)
check("… which holds at once", bob("POST", "/v1/api-keys", {"name": "x"}).status == 403)
a = ada("GET", f"/v1/teams/{blue}/permissions")
check("what one may do", a.json["role"] == "owner" and "manage" in a.json["permissions"], a)
a = viewer("GET", f"/v1/teams/{blue}/permissions")
check("a viewer may less", a.json["permissions"] == ["view", "capsules.view", "usage.view", "quota.view"], a)
roles = ada("GET", "/v1/roles").json
table = sql("SELECT string_agg(name, ' ' ORDER BY name) FROM permissions")
check("the dictionary is the table", " ".join(sorted(p["name"] for p in roles["permissions"])) == table, table)
for who in (ada, admin, member, viewer, auditor):
    got = who("GET", f"/v1/teams/{blue}/permissions").json
    listed = next(r["permissions"] for r in roles["roles"] if r["name"] == got["role"])
    asked = who("POST", "/v1/permissions/check", {"permissions": [p["name"] for p in roles["permissions"]] + ["no.such"]}).json["decisions"]
    check(f"{got['role']}: list, own permissions and check agree", got["permissions"] == listed
          and sorted(p for p, y in asked.items() if y) == sorted(listed), (listed, asked))
a = ada("POST", "/v1/permissions/check", {"permissions": ["view"], "team": bob.own_team})
check("in another team: nothing", a.json["decisions"] == {"view": False}, a)
a = ada("POST", "/v1/permissions/check", {"permissions": ["capsules.view"], "capsule": "cl-" + "0" * 25})
check("of an unknown capsule: nothing", a.json["decisions"] == {"capsules.view": False}, a)
a = ada("POST", "/v1/permissions/check", {"permissions": ["team.view", "team.manage"]})
check("names may begin with team.", a.json["decisions"] == {"team.view": True, "team.manage": True}, a)

x, y = Person("x"), Person("y")
left = []
for i in range(RACES):
    x.login(x.own_team)
    pair = x("POST", "/v1/teams", {"name": f"Race {i}"}).json["id"] if i < 1 else pair
    sql(f"INSERT INTO users_teams (team_id, user_id, role, source) SELECT '{uuid_of(pair)}', id, 'owner', 'added' FROM users "
        f"WHERE email IN ('{x.email}', '{y.email}') ON CONFLICT (team_id, user_id) DO UPDATE SET role = 'owner'")
    if i == 0:
        x.login(pair), y.login(pair)
        tokens = x.token, y.token
    x.token, y.token = tokens
    one, two = [(lambda: x("POST", f"/v1/teams/{pair}/leave"), lambda: y("POST", f"/v1/teams/{pair}/leave")),
                (lambda: x("PATCH", f"/v1/teams/{pair}/members/{y.id}", {"role": "member"}),
                 lambda: y("PATCH", f"/v1/teams/{pair}/members/{x.id}", {"role": "member"})),
                (lambda: x("DELETE", f"/v1/teams/{pair}/members/{y.id}"), lambda: y("POST", f"/v1/teams/{pair}/leave"))][i % 3]
    got = together(one, two)
    left.append((sql(f"SELECT count(*) FROM users_teams WHERE team_id = '{uuid_of(pair)}' AND role = 'owner'"), [g.status for g in got]))
check(f"two owners leave, demote, remove each other, {RACES} times: one stays each time", all(n >= "1" for n, _ in left), left)
check("… and somebody succeeded each time", all(204 in s for _, s in left), left)

# ---- what a member loses (row 24)

key = member("POST", "/v1/api-keys", {"name": "mine"}).json
check("his key works", with_key(key["key"], "GET", "/v1/capsules").status == 200)
check("he is removed", admin("DELETE", f"/v1/teams/{blue}/members/{member.id}").status == 204)
a = member("GET", "/v1/capsules")
check("the old token has no team", a.status == 403 and a.code == "no_team", a)
check("the team is not there for him", member("GET", f"/v1/teams/{blue}").status == 404)
check("his key is dead", with_key(key["key"], "GET", "/v1/capsules").status == 401)
check("… and its end is in the log", audit(blue, "resource_type IN ('api_key', 'member')")[-2:] == ["api_key/revoke", "member/remove"], audit(blue))
check("once more: not found", admin("DELETE", f"/v1/teams/{blue}/members/{member.id}").status == 404)
check("a viewer leaves", viewer("POST", f"/v1/teams/{blue}/leave").status == 204 and viewer("GET", f"/v1/teams/{blue}").status == 404)

# ---- another team's, and nobody's (row 25)

other = Person("other")
inv = ada("POST", f"/v1/teams/{blue}/invitations", {}).json["id"]
kid = ada("POST", "/v1/api-keys", {"name": "k"}).json["id"]
none_team, none_inv, none_key = "team-" + "0" * 24 + "1", "inv-" + "0" * 24 + "1", "key-" + "0" * 24 + "1"
for method, mine, random, body in [
        ("GET", f"/v1/teams/{blue}", f"/v1/teams/{none_team}", None),
        ("PATCH", f"/v1/teams/{blue}", f"/v1/teams/{none_team}", {"name": "Mine"}),
        ("DELETE", f"/v1/teams/{blue}", f"/v1/teams/{none_team}", None),
        ("GET", f"/v1/teams/{blue}/permissions", f"/v1/teams/{none_team}/permissions", None),
        ("GET", f"/v1/teams/{blue}/members", f"/v1/teams/{none_team}/members", None),
        ("POST", f"/v1/teams/{blue}/members", f"/v1/teams/{none_team}/members", {"email": other.email}),
        ("PATCH", f"/v1/teams/{blue}/members/{bob.id}", f"/v1/teams/{none_team}/members/{bob.id}", {"role": "viewer"}),
        ("DELETE", f"/v1/teams/{blue}/members/{bob.id}", f"/v1/teams/{none_team}/members/{bob.id}", None),
        ("POST", f"/v1/teams/{blue}/leave", f"/v1/teams/{none_team}/leave", None),
        ("GET", f"/v1/teams/{blue}/invitations", f"/v1/teams/{none_team}/invitations", None),
        ("POST", f"/v1/teams/{blue}/invitations", f"/v1/teams/{none_team}/invitations", {}),
        ("DELETE", f"/v1/teams/{blue}/invitations/{inv}", f"/v1/teams/{none_team}/invitations/{inv}", None),
        ("DELETE", f"/v1/teams/{other.team}/invitations/{inv}", f"/v1/teams/{other.team}/invitations/{none_inv}", None),
        ("DELETE", f"/v1/teams/{other.team}/members/{bob.id}", f"/v1/teams/{other.team}/members/usr-{'0' * 24}1", None),
        ("POST", f"/v1/me/invitations/{inv}/accept", f"/v1/me/invitations/{none_inv}/accept", None),
        ("POST", f"/v1/me/invitations/{inv}/decline", f"/v1/me/invitations/{none_inv}/decline", None),
        ("GET", f"/v1/api-keys/{kid}", f"/v1/api-keys/{none_key}", None),
        ("GET", f"/v1/api-keys/{kid}/usage", f"/v1/api-keys/{none_key}/usage", None),
        ("PATCH", f"/v1/api-keys/{kid}", f"/v1/api-keys/{none_key}", {"name": "x"}),
        ("DELETE", f"/v1/api-keys/{kid}", f"/v1/api-keys/{none_key}", None),
        ("POST", f"/v1/api-keys/{kid}/revoke", f"/v1/api-keys/{none_key}/revoke", None),
        ("POST", f"/v1/api-keys/{kid}/rotate", f"/v1/api-keys/{none_key}/rotate", {})]:
    a, b = other(method, mine, body), other(method, random, body)
    check(f"{method} {mine.split('-')[0]}…: another's and nobody's are one 404", a.status == 404 and a.bare() == b.bare(), (a, b))
a = other("GET", "/v1/teams/team-" + "z" * 25)
check("an id that is no 128 bits is malformed", a.status == 400, a)

# ---- invitations (row 23)

made = ada("POST", f"/v1/teams/{blue}/invitations", {"max_uses": 3, "role": "viewer"})
token = made.json["token"]
check("an invitation shows its token once", made.status == 201 and "token" not in ada("GET", f"/v1/teams/{blue}/invitations").json[0], made)
check("… stores a hash", sql(f"SELECT count(*) FROM team_invitations i WHERE to_jsonb(i)::text LIKE '%{token}%'") == "0")
a = call("POST", "/v1/team-invitations/preview", {"token": token})
check("everybody can see what it is", a.json["team_name"] == "Sky" and a.json["role"] == "viewer" and not a.json["email_bound"], a)
crowd = [Person("c") for _ in range(10)]
got = together(*[(lambda p=p: p("POST", "/v1/team-invitations/accept", {"token": token})) for p in crowd for _ in range(2)])
inside = [m["user_id"] for m in ada("GET", f"/v1/teams/{blue}/members").json]
check("20 accept at once, 3 come in", sum(p.id in inside for p in crowd) == 3, [g.status for g in got])
check("… counted", sql(f"SELECT use_count FROM team_invitations WHERE id = '{uuid_of(made.json['id'])}'") == "3")
check("… the others are told", {g.code for g in got if g.status != 200} == {"invalid_token"}, [g.code for g in got])
if "HUTCH_RUN" in os.environ:
    logs = {path: open(path, "rb").read() for path in glob.glob(os.environ["HUTCH_RUN"] + "/log/*.log")}
    check("… and no log has the token, the web server's neither", [1 for path, text in logs.items() if "access" in path and text]
          and not [path for path, text in logs.items() if token.encode() in text], list(logs))
check("used up", call("POST", "/v1/team-invitations/preview", {"token": token}).code == "invalid_token")

made = ada("POST", f"/v1/teams/{blue}/invitations", {"email": other.email, "role": "member"})
token, inv = made.json["token"], made.json["id"]
a = crowd[0]("POST", "/v1/team-invitations/accept", {"token": token})
check("bound to an address: another is refused", a.status == 403, a)
check("it waits in his list", [i["id"] for i in other("GET", "/v1/me/invitations").json] == [inv])
check("he declines", other("POST", "/v1/team-invitations/decline", {"token": token}).status == 204)
check("… for good", other("POST", "/v1/team-invitations/accept", {"token": token}).code == "invalid_token")
inv = ada("POST", f"/v1/teams/{blue}/invitations", {"email": other.email, "role": "member"}).json["id"]
a = other("POST", f"/v1/me/invitations/{inv}/accept")
check("the next one he accepts by its id", a.status == 200 and a.json["role"] == "member", a)
check("… and is in", other.login(blue).team == blue)
token = ada("POST", f"/v1/teams/{blue}/invitations", {"max_uses": 2}).json["token"]
check("who is in already is not counted", other("POST", "/v1/team-invitations/accept", {"token": token}).status == 200
      and sql(f"SELECT max(use_count) FROM team_invitations WHERE max_uses = 2 AND team_id = '{uuid_of(blue)}'") == "0")
inv = ada("POST", f"/v1/teams/{blue}/invitations", {}).json
check("revoke", ada("DELETE", f"/v1/teams/{blue}/invitations/{inv['id']}").status == 204
      and call("POST", "/v1/team-invitations/preview", {"token": inv["token"]}).code == "invalid_token")
n = len(audit(blue, "action = 'revoke' AND resource_type = 'invitation'"))
check("revoked again: no row", ada("DELETE", f"/v1/teams/{blue}/invitations/{inv['id']}").status == 204
      and len(audit(blue, "action = 'revoke' AND resource_type = 'invitation'")) == n == 1)
for bad in ({"role": "owner"}, {"max_uses": 0}, {"max_uses": 2, "email": "a@b.example"}, {"expires_in": 2592001}, {"email": "nonsense"}):
    check(f"refused: an invitation {bad}", ada("POST", f"/v1/teams/{blue}/invitations", bad).status == 400)
check("invitations are for those who manage members", other("GET", f"/v1/teams/{blue}/invitations").status == 403)
sql(f"INSERT INTO team_invitations (id, team_id, token_hash, role, expires_at) SELECT gen_random_uuid(), '{uuid_of(blue)}', sha256(random()::text::bytea), "
    f"'viewer', now() + interval '1 day' FROM generate_series(1, 100)")
a = ada("POST", f"/v1/teams/{blue}/invitations", {})
check("at most 100 open ones", a.status == 403 and a.code == "quota_exceeded", a)

# ---- search (row 30)

weird = f"_a{RUN}@x-{RUN}.example", f"ba{RUN}@x-{RUN}.example", f"p%{RUN}@x-{RUN}.example"
found = {e: Person("w", e) for e in weird}


def search(text, who=ada):
    return who("GET", "/v1/users/search?email=" + text.replace("%", "%25").replace("_", "%5F").replace("@", "%40").replace("\\", "%5C"))


check("a full address finds", [u["email"] for u in search(weird[0]).json] == [weird[0]])
check("_ is a letter", search(f"_a{RUN}@", found[weird[1]]).json == [{"user_id": found[weird[0]].id, "email": weird[0]}])
check("% is a letter", search("%%@").json == [] and search(f"p%{RUN}@", found[weird[1]]).json[0]["email"] == weird[2])
check("\\ is a letter", search("a\\@").json == [])
check("who shares nothing is not found by a part", search(f"ba{RUN}@").json == [])
check("… of the own team he is", bob.id in [u["user_id"] for u in search(bob.email[:-3]).json])
for bad in ("abc", "a@", "", "  @ "):
    check(f"refused: a search for '{bad}'", search(bad.replace(" ", "%20") if bad.strip() else "%20").status == 400 or bad == "  @ ")
sql(f"UPDATE users SET status = 'disabled' WHERE email = '{weird[0]}'")
check("only active people are found", search(weird[0]).json == [])

# ---- nobody becomes somebody else

root = Person("root")
sql(f"UPDATE users SET platform_role = 'admin' WHERE email = '{root.email}'")
for method, path in (("POST", f"/v1/admin/users/{ada.id}/impersonate"), ("GET", f"/v1/admin/users/{ada.id}/impersonate"),
                     ("POST", f"/v1/admin/users/{ada.id}/token"), ("POST", f"/v1/admin/users/{ada.id}/api-keys"), ("POST", "/v1/auth/impersonate")):
    a = root(method, path, {"user_id": ada.id} if method == "POST" else None)
    check(f"{method} {path.rsplit('/', 1)[1]}: no such route", a.status in (404, 405), a)
check("a platform admin is no member", root("GET", f"/v1/teams/{blue}").status == 404
      and root("POST", "/v1/auth/switch-team", {"team_id": blue}).status == 404)

# ---- the end of a team

a = ada("DELETE", f"/v1/teams/{blue}")
check("a team is deleted", a.status == 204 and a.headers["X-Job-Id"].startswith("job-"), a)
a = ada("POST", "/v1/capsules", {"template": "minimal"})
check("nothing is made in it", a.status == 403 and a.code == "no_team", a)
check("it is not there any more", ada("GET", f"/v1/teams/{blue}").status == 404 and blue not in [t["id"] for t in ada("GET", "/v1/teams").json])
check("its keys are gone, its invitations revoked", sql(f"SELECT (SELECT count(*) FROM api_keys WHERE team_id = t.id), "
      f"(SELECT count(*) FROM team_invitations WHERE team_id = t.id AND revoked_at IS NULL AND use_count < max_uses AND declined_at IS NULL) "
      f"FROM teams t WHERE id = '{uuid_of(blue)}'") == "0|0")
check("its purge waits", sql(f"SELECT count(*) FROM jobs WHERE kind = 'team.purge' AND team_id = '{uuid_of(blue)}' OR args::text LIKE '%{blue}%'") != "0")
end()
