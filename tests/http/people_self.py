#!/usr/bin/env python3
"""people_self.py - one's own account: password, reset, address, logins, teams; and guessing (spec 01 rows 9, 15, 31)."""
from people_house import PASSWORD, House, Report, wait_for

r = Report()
h = House()


def me(token):
    return h.call("GET", "/v1/me", token=token)


def ask(address):
    return h.call("POST", "/v1/me/password/reset", {"email": address})


def confirm(token, new="set anew by mail"):
    return h.call("POST", "/v1/me/password/reset/confirm", {"token": token, "new_password": new})


def resets():
    who = "reset@x.example"
    p = h.person(who)
    h.login(who, "wrong wrong wrong")
    for n in range(1, 6):
        ask(who)
        h.mailed(who, "password_reset_link", n)
    six = ask(who)
    r.check("six resets, five mails", six.status == 204 and not wait_for(lambda: len(h.mails(who, "password_reset_link")) > 5, 2))
    tokens = [h.mailed(who, "password_reset_link", n) for n in range(1, 6)]
    r.check("only the newest link is good", [confirm(t).code for t in tokens[:4]] == ["invalid_token"] * 4)
    r.check("a bad password leaves the link", confirm(tokens[4], "short").status == 400)
    h.one("REVOKE UPDATE ON login_sessions FROM hutch_app")
    broken = confirm(tokens[4])
    h.one("GRANT UPDATE ON login_sessions TO hutch_app")
    r.check("a database error leaves it, too", broken.status >= 500, broken)
    done = confirm(tokens[4])
    r.check("then it works, once", done.status == 204 and confirm(tokens[4]).code == "invalid_token", done)
    r.check("all sessions end, nobody is signed in", me(p["token"]).status == 401 and not done.cookies)
    r.check("the new password signs in, the old one does not", h.login(who, "set anew by mail").status == 200 and h.login(who).status == 401)
    r.check("mail and rows", wait_for(lambda: h.mails(who, "password_reset")) and h.audit("user", "password_reset", who) == 1
            and h.audit("user", "password_reset_requested", who) == 5)
    r.check("an unknown address: 204, no mail", ask("none@x.example").status == 204 and not h.mails("none@x.example"))
    for raw in (b"", b"{", b"[]", b'{"email":7}', b'{"email":"no address"}'):
        a = h.call("POST", "/v1/me/password/reset", raw=raw)
        r.check("reset of %r: 204" % raw, a.status == 204, a)


def changing():
    who = "change@x.example"
    p, other = h.person(who), h.login("change@x.example").json
    ask(who)
    link = h.mailed(who, "password_reset_link")
    path, body = "/v1/me/password", {"current_password": PASSWORD, "new_password": "another long one"}
    bad = h.call("POST", path, dict(body, current_password="not this one"), token=p["token"])
    r.check("a wrong current password: 401", bad.code == "wrong_password", bad)
    weak = h.call("POST", path, dict(body, new_password="change1234"), token=p["token"])
    r.check("a new one near to the address: 400 on the field", weak.status == 400 and "new_password" in weak.json["error"]["message"], weak)
    r.check("changed", h.call("POST", path, body, token=p["token"]).status == 204)
    r.check("other logins end, this one stays", me(other["token"]).status == 401 and me(p["token"]).status == 200)
    r.check("a link that waits is dead", confirm(link).code == "invalid_token")
    r.check("mail and row", wait_for(lambda: h.mails(who, "password_changed")) and h.audit("user", "password_change", who) == 1)
    h.one("UPDATE users SET password_hash = NULL WHERE email = '%s'" % who)
    r.check("without a password", me(p["token"]).json["has_password"] is False)
    r.check("adding one wants it twice", h.call("POST", path, {"new_password": "the first one"}, token=p["token"]).status == 400)
    both = {"new_password": "the first one", "confirm_password": "the first one"}
    r.check("added", h.call("POST", path, both, token=p["token"]).status == 204 and h.login(who, "the first one").status == 200
            and wait_for(lambda: h.mails(who, "password_added")))
    for _ in range(10):
        h.call("POST", path, dict(body, current_password="not this one"), token=p["token"])
    a = h.call("POST", path, dict(body, current_password="the first one"), token=p["token"])
    r.check("guessing the current one is slowed down", a.status == 429 and int(a.headers["retry-after"]) > 0, a)


def address():
    who, new = "here@x.example", "elsewhere@y.example"
    p = h.person(who)
    a = h.call("POST", "/v1/me/email", {"email": new}, token=p["token"])
    taken = h.call("POST", "/v1/me/email", {"email": "change@x.example"}, token=p["token"])
    r.check("a new address and a taken one: one answer", a.status == 204 and a.seen() == taken.seen(), (a, taken))
    r.check("the owner of the taken one is told", wait_for(lambda: h.mails("change@x.example", "already_registered")))
    token = h.mailed(new, "email_change")
    r.check("the old address is told", wait_for(lambda: any(new in m[1] for m in h.mails(who, "email_change"))), h.mails(who))
    r.check("and gets no link", not any("token=" in m[1] for m in h.mails(who, "email_change")))
    r.check("nothing changed yet", me(p["token"]).json["email"] == who)
    go = h.call("POST", "/v1/me/email/confirm", {"token": token})
    r.check("confirmed, once", go.status == 204 and h.call("POST", "/v1/me/email/confirm", {"token": token}).code == "invalid_token", go)
    r.check("the address changed", me(p["token"]).json["email"] == new and h.login(new).status == 200 and h.login(who).status == 401
            and h.audit("user", "email_change", new) == 1)
    h.call("POST", "/v1/me/email", {"email": "race@x.example"}, token=p["token"])
    token = h.mailed("race@x.example", "email_change")
    h.signup("race@x.example")
    r.check("somebody was faster: 400, and nothing changed", h.call("POST", "/v1/me/email/confirm", {"token": token}).code == "invalid_token"
            and me(p["token"]).json["email"] == new)


def logins():
    who = "logins@x.example"
    p = h.person(who)
    all3 = [h.login(who, ip="198.51.100.%d" % i, agent="agent %d" % i).json for i in range(3)]
    rows = h.call("GET", "/v1/me/logins", token=p["token"]).json
    r.check("logins are listed, newest first", len(rows) == 4 and rows[0]["ip"] == "198.51.100.2" and rows[0]["user_agent"] == "agent 2"
            and [x["current"] for x in rows] == [False, False, False, True], rows)
    r.check("a sign-in from a new device is told", wait_for(lambda: len(h.mails(who, "new_login")) == 3))
    r.check("one is ended", h.call("DELETE", "/v1/me/logins/%s" % rows[0]["id"], token=p["token"]).status == 204
            and me(all3[2]["token"]).status == 401)
    r.check("twice: 404", h.call("DELETE", "/v1/me/logins/%s" % rows[0]["id"], token=p["token"]).status == 404)
    stranger = h.person("stranger@x.example")
    r.check("somebody else's: 404", h.call("DELETE", "/v1/me/logins/%s" % rows[1]["id"], token=stranger["token"]).status == 404
            and me(all3[1]["token"]).status == 200)
    r.check("all but this one", h.call("DELETE", "/v1/me/logins", token=p["token"]).status == 204 and me(all3[0]["token"]).status == 401
            and len(h.call("GET", "/v1/me/logins", token=p["token"]).json) == 1)
    r.check("two rows", h.audit("auth", "session_revoke", who) == 2)
    mine = h.call("GET", "/v1/me/activity?limit=3", token=p["token"]).json
    r.check("one's own trail, in all teams", [x["action"] for x in mine["items"]] == ["session_revoke", "session_revoke", "login"]
            and mine["items"][0]["actor_id"] == p["user_id"], mine)
    more = h.call("GET", "/v1/me/activity?cursor=" + mine["next_cursor"], token=p["token"]).json["items"]
    r.check("page by page to its beginning", [x["action"] for x in more][-2:] == ["activate", "signup"]
            and not {x["id"] for x in more} & {x["id"] for x in mine["items"]}, more)
    r.check("nobody else's", all(x.get("actor_id") == p["user_id"] or x.get("resource_id") in (p["user_id"], p["team_id"])
                                 for x in mine["items"] + more))
    h.login(who)
    out = h.call("POST", "/v1/auth/logout", {"all": True}, token=p["token"])
    r.check("logout all", out.status == 204 and h.one("SELECT count(*) FROM login_sessions s JOIN users u ON u.id = s.user_id WHERE "
            "u.email = '%s' AND revoked_at IS NULL" % who) == "0")


def teams():
    who = "teams@x.example"
    p = h.person(who)
    h.one("WITH t AS (INSERT INTO teams (id, name, slug) VALUES (gen_random_uuid(), 'Second', 'abcdef-012345') RETURNING id) "
          "INSERT INTO users_teams (team_id, user_id, role, source) SELECT t.id, u.id, 'viewer', 'added' FROM t, users u WHERE u.email = '%s'" % who)
    second = next(t["id"] for t in me(p["token"]).json["teams"] if t["name"] == "Second")
    b = h.call("POST", "/v1/auth/switch-team", {"team_id": second}, token=p["token"])
    r.check("switched to another team", b.status == 200 and b.json["team_id"] == second and b.json["role"] == "viewer"
            and b.json["session_id"] == p["session_id"], b)
    c = h.call("PATCH", "/v1/me", {"name": "New Name"}, token=b.json["token"])
    r.check("PATCH me with a token of team B: a token of team B", c.status == 200 and c.json["team_id"] == second and c.json["name"] == "New Name"
            and me(c.json["token"]).json["team_id"] == second, c)
    d = h.call("PATCH", "/v1/me", {"default_team_id": second}, token=p["token"])
    r.check("the default team: for the next login, not this token", d.json["team_id"] == p["team_id"] and h.login(who).json["team_id"] == second, d)
    no = [h.call("PATCH", "/v1/me", {"default_team_id": "team-" + "0" * 24 + "7"}, token=p["token"]),
          h.call("POST", "/v1/auth/switch-team", {"team_id": "team-" + "0" * 24 + "7"}, token=p["token"])]
    r.check("a team that is not his: 404", [x.status for x in no] == [404, 404], no)
    h.one("UPDATE teams SET deleted_at = now() WHERE slug = 'abcdef-012345'")
    r.check("a deleted one: the same", h.call("POST", "/v1/auth/switch-team", {"team_id": second}, token=p["token"]).status == 404)
    r.check("rows", h.audit("auth", "switch_team", who) == 1 and h.audit("user", "rename", who) == 2)


def guessing():
    who = "victim@x.example"
    h.person(who)
    device = h.call("POST", "/v1/auth/login", {"email": who, "password": PASSWORD}).cookies
    h.one("DELETE FROM auth_throttle")
    locked = h.audit("auth", "locked")
    for target in (who, "unknown@x.example"):
        all60 = []
        for burst in range(3):
            all60 += h.at_once(20, lambda i, b=burst, t=target: h.login(t, "guess number %d" % i, ip="203.0.113.%d" % (b * 20 + i)))
        r.check("60 guesses from 60 addresses at once: ten hashes, %s" % target, sum(a.status == 401 for a in all60) == 10
                and sum(a.status == 429 and int(a.headers["retry-after"]) > 0 for a in all60) == 50, [a.status for a in all60])
    r.check("a row for each lock", h.audit("auth", "locked") == locked + 2)
    r.check("the right password, too, must wait", h.login(who).status == 429)
    r.check("the owner on his device does not", h.login(who, cookies=device).status == 200)
    h.redis_cli("FLUSHALL")
    r.check("losing Redis changes nothing", h.login(who).status == 429 and h.login(who, cookies=device).status == 200)
    for _ in range(10):
        h.login(who, "wrong wrong wrong", cookies=device)
    r.check("a known device has its own ten", h.login(who, cookies=device).status == 429)
    h.one("UPDATE auth_throttle SET window_start = now() - interval '16 minutes'")
    r.check("after the window it goes on", h.login(who).status == 200)
    h.one("UPDATE auth_throttle SET month_failures = 100")
    a = h.login(who)
    r.check("a hundred in a month: only a known device", a.status == 429 and int(a.headers["retry-after"]) > 86400
            and h.login(who, cookies=device).status == 200, a)
    ask(who)
    r.check("or a reset", confirm(h.mailed(who, "password_reset_link")).status == 204 and h.login(who, "set anew by mail").status == 200)


def addresses():
    h.again(rate_limits=True)
    ip = "192.0.2.77"
    got = [h.signup("ad%d@x.example" % i, ip=ip).status for i in range(6)]
    r.check("five sign-ups an hour and address", got == [201] * 5 + [429], got)
    r.check("another address may", h.signup("ad9@x.example", ip="192.0.2.78").status == 201)
    got = [h.call("POST", "/v1/me/password/reset", {"email": "ad%d@x.example" % i}, ip=ip).status for i in range(11)]
    r.check("ten resets", got == [204] * 10 + [429], got)
    got = [h.activate("nonsense", ip=ip).status for _ in range(21)]
    r.check("twenty tokens", got == [400] * 20 + [429], got)
    got = [h.login("none%d@x.example" % i, "wrong wrong wrong", ip="2001:db8:1:2::%x" % i).status for i in range(31)]
    r.check("thirty failures of an IPv6 network", got == [401] * 30 + [429], got)
    cli = h.login("stranger@x.example", ip="192.0.2.79").json
    token = h.login("stranger@x.example", ip="192.0.2.81").json["token"]
    got = []  # while they are asked for, others become free: one in 2 s, and one a second below
    while len(got) < 300 and (not got or got[-1].status == 200):
        got.append(h.call("GET", "/v1/users/search?email=nobody%40x.example", token=token, ip="192.0.2.81"))
    r.check("thirty searches a minute", len(got) > 30 and got[-1].status == 429 and int(got[-1].headers["retry-after"]) > 0, (len(got), got[-1]))
    got = []
    while len(got) < 600 and 429 not in got:
        a = h.call("POST", "/v1/auth/refresh", {"refresh_token": cli["refresh_token"]}, ip="192.0.2.80")
        got.append(a.status)
        cli = a.json if a.status == 200 else cli
    r.check("sixty refreshes a minute and login", got[:60] == [200] * 60 and got[-1] == 429, (len(got), got[-1]))
    h.again(rate_limits=False)


def closed():
    h.again(signup_domains="good.example, x.example")
    r.check("a domain that may not sign up", h.signup("a@bad.example").code == "signup_closed" and h.signup("dom@x.example").status == 201)
    h.again(signup="invite", signup_domains="")
    h.one("INSERT INTO team_invitations (id, team_id, email, token_hash, role, expires_at) SELECT gen_random_uuid(), id, 'guest@x.example', "
          "sha256('x'), 'member', now() + interval '1 day' FROM teams WHERE slug <> 'platform' LIMIT 1")
    h.one("INSERT INTO team_invitations (id, team_id, token_hash, role, max_uses, expires_at) SELECT gen_random_uuid(), id, "
          "sha256('for anybody'), 'member', 3, now() + interval '1 day' FROM teams WHERE slug <> 'platform' LIMIT 1")
    body = {"email": "byword@x.example", "password": PASSWORD, "name": "B", "invitation_token": "for anybody"}
    r.check("only the invited", h.signup("uninvited@x.example").code == "signup_closed" and h.signup("guest@x.example").status == 201
            and h.call("POST", "/v1/auth/signup", body).status == 201)
    h.one("UPDATE team_invitations SET revoked_at = now()")
    r.check("while the invitation lives", h.call("POST", "/v1/auth/signup", dict(body, email="late2@x.example")).code == "signup_closed")
    h.again(signup="closed")
    r.check("nobody may", h.signup("dom2@x.example").code == "signup_closed" and h.call("GET", "/v1/auth/methods").json["signup"] == "closed")


resets()
changing()
address()
logins()
teams()
guessing()
addresses()
closed()
r.check("no program complained", not h.complaints(), h.complaints())
r.end()
