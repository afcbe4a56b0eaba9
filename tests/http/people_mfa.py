#!/usr/bin/env python3
"""people_mfa.py - second factors, recent proof, and what has to be done first (spec 01 rows 16, 31, 32)."""
import time

from people_house import PASSWORD, House, Report, totp, wait_for

r = Report()
h = House()


def me(token):
    return h.call("GET", "/v1/me", token=token)


def enrol(person, name="phone"):
    """A verified factor: (its row, its secret, the step that was used)."""
    new = h.call("POST", "/v1/me/mfa", {"type": "totp", "name": name}, token=person["token"])
    assert new.status == 201, new
    while time.time() % 30 > 15:  # the step before must still be the one before when it arrives
        time.sleep(0.5)
    done = h.call("POST", "/v1/me/mfa/%s/verify" % new.json["id"], {"code": totp(new.json["secret"], step=-1)}, token=person["token"])
    assert done.status == 200, done
    return done.json, new.json["secret"]


def challenge(address):
    a = h.login(address)
    assert a.code == "mfa_required", a
    return a.json["error"]["mfa_token"]


def second(token, code, kind="totp", **more):
    return h.call("POST", "/v1/auth/mfa", {"mfa_token": token, "type": kind, "code": code}, **more)


def factors():
    p = h.person("mfa@x.example")
    other = h.login("mfa@x.example").json
    r.check("no factor at first", me(p["token"]).json["mfa_enabled"] is False and h.call("GET", "/v1/me/mfa", token=p["token"]).json
            == {"factors": [], "backup_codes_left": 0})
    new = h.call("POST", "/v1/me/mfa", {}, token=p["token"])
    r.check("enrolling gives a secret and a URL", len(new.json["secret"]) == 32 and new.json["otpauth_url"].startswith(
        "otpauth://totp/Hutch:mfa@x.example?secret=" + new.json["secret"]), new)
    r.check("a factor without its first code is none", h.login("mfa@x.example").status == 200)
    path = "/v1/me/mfa/%s/verify" % new.json["id"]
    r.check("a wrong first code: 400", h.call("POST", path, {"code": "000000"}, token=p["token"]).status == 400)
    h.one("UPDATE mfa_factors SET created_at = now() - interval '11 minutes'")
    r.check("ten minutes later it is gone", h.call("POST", path, {"code": totp(new.json["secret"])}, token=p["token"]).status == 404)
    factor, secret = enrol(p)
    codes = factor["backup_codes"]
    r.check("the first factor brings ten backup codes", len(codes) == 10 and codes[3].startswith("3-"), factor)
    r.check("other logins end", me(other["token"]).status == 401 and me(p["token"]).json["mfa_enabled"])
    r.check("mail and row", wait_for(lambda: h.mails("mfa@x.example", "mfa_changed")) and h.audit("mfa", "enroll", "mfa@x.example") == 1)
    r.check("no secret is stored as it is", secret not in h.one("SELECT string_agg(m::text, '') FROM mfa_factors m")
            and codes[0] not in h.one("SELECT string_agg(m::text, '') FROM mfa_backup_codes m"))
    return p, factor, secret, codes


def signing_in(p, factor, secret, codes):
    a = h.login("mfa@x.example")
    r.check("login: 403 mfa_required with a token", a.status == 403 and a.code == "mfa_required"
            and a.json["error"]["methods"] == ["totp", "backup"] and not a.cookies, a)
    token, code = a.json["error"]["mfa_token"], totp(secret)
    r.check("a wrong code: 401", second(token, "000000" if code != "000000" else "111111").status == 401)
    good = second(token, code)
    r.check("the right one: 200", good.status == 200 and good.json["refresh_token"], good)
    r.check("the challenge is over", second(token, totp(secret, step=1)).code == "invalid_token")
    r.check("the same code again: 401", second(challenge("mfa@x.example"), code).status == 401)
    h.one("UPDATE mfa_factors SET last_step = 0")
    tokens = [challenge("mfa@x.example") for _ in range(6)]
    code = totp(secret)
    all6 = h.at_once(6, lambda i: second(tokens[i], code))
    r.check("one code, six at once: one winner", sorted(x.status for x in all6) == [200] + [401] * 5, all6)
    h.one("DELETE FROM auth_throttle")
    token = challenge("mfa@x.example")
    r.check("five wrong codes: 401", [second(token, "00000%d" % i).status for i in range(5)] == [401] * 5)
    h.one("UPDATE mfa_factors SET last_step = 0")
    r.check("the sixth try: 400, even with a right one", second(token, totp(secret)).code == "invalid_token")
    h.one("DELETE FROM auth_throttle")
    r.check("a backup code: 200", second(challenge("mfa@x.example"), codes[4].upper(), "backup").status == 200
            and h.audit("mfa", "backup_used", "mfa@x.example") == 1)
    r.check("once", second(challenge("mfa@x.example"), codes[4], "backup").status == 401)
    r.check("nine are left", h.call("GET", "/v1/me/mfa", token=p["token"]).json["backup_codes_left"] == 9)
    tokens = [challenge("mfa@x.example") for _ in range(4)]
    all4 = h.at_once(4, lambda i: second(tokens[i], codes[5], "backup"))
    r.check("one backup code, four at once: one winner", sorted(x.status for x in all4) == [200, 401, 401, 401], all4)
    logins = h.call("GET", "/v1/me/logins", token=p["token"]).json
    r.check("logins tell which had a factor", any(x["mfa"] for x in logins) and sum(x["current"] for x in logins) == 1, logins)


def reset_keeps(secret):
    h.one("DELETE FROM auth_throttle")
    h.call("POST", "/v1/me/password/reset", {"email": "mfa@x.example"})
    a = h.call("POST", "/v1/me/password/reset/confirm", {"token": h.mailed("mfa@x.example", "password_reset_link"),
                                                         "new_password": "after the reset"})
    r.check("a reset by mail keeps the factor", a.status == 204 and h.login("mfa@x.example", "after the reset").code == "mfa_required", a)
    h.one("UPDATE mfa_factors SET last_step = 0")
    return second(h.login("mfa@x.example", "after the reset").json["error"]["mfa_token"], totp(secret)).json


def proof(p, factor, secret):
    token = p["token"]
    h.one("UPDATE login_sessions SET auth_at = now() - interval '16 minutes'")
    gone = "/v1/me/mfa/" + factor["id"]
    r.check("without a recent proof: 403", [h.call(*x, token=token).code for x in (("DELETE", gone), ("POST", "/v1/me/mfa", {}),
            ("POST", "/v1/me/mfa/backup-codes"), ("POST", "/v1/me/email", {"email": "z@x.example"}))] == ["reauth_required"] * 4)
    r.check("with a factor the password is no proof", h.call("POST", "/v1/auth/reauth", {"password": "after the reset"}, token=token).code
            == "mfa_required")
    r.check("a wrong code is none", h.call("POST", "/v1/auth/reauth", {"code": "123123"}, token=token).status == 401)
    h.one("UPDATE mfa_factors SET last_step = 0")
    r.check("a code is", h.call("POST", "/v1/auth/reauth", {"code": totp(secret)}, token=token).status == 204)
    new = h.call("POST", "/v1/me/mfa/backup-codes", token=token)
    r.check("then new backup codes are made", new.status == 200 and len(new.json["codes"]) == 10, new)
    h.one("UPDATE teams SET require_mfa = true WHERE id IN (SELECT team_id FROM users_teams m JOIN users u ON u.id = m.user_id"
          " WHERE u.email = 'mfa@x.example')")
    r.check("a team that wants a factor keeps the last one", h.call("DELETE", gone, token=token).code == "mfa_required_by_policy")
    h.one("UPDATE teams SET require_mfa = false")
    r.check("removed", h.call("DELETE", gone, token=token).status == 204 and h.call("DELETE", gone, token=token).status == 404
            and h.audit("mfa", "remove", "mfa@x.example") == 1)
    r.check("its backup codes, too; a login needs no code", h.one("SELECT count(*) FROM mfa_backup_codes") == "0"
            and h.login("mfa@x.example", "after the reset").status == 200)
    r.check("somebody else's factor is none", h.call("DELETE", gone, token=h.person("else@x.example")["token"]).status == 404)


def wanted():
    p = h.person("want@x.example")
    team = h.one("SELECT team_id FROM users_teams m JOIN users u ON u.id = m.user_id WHERE u.email = 'want@x.example'")
    h.one("UPDATE teams SET require_mfa = true WHERE id = '%s'" % team)
    a = h.call("GET", "/v1/capsules", token=p["token"])
    r.check("a team that wants a factor: 403 on its routes", a.code == "mfa_enrollment_required", a)
    r.check("but not on one's own", me(p["token"]).status == 200 and h.call("GET", "/v1/me/mfa", token=p["token"]).status == 200)
    r.check("the login says so", h.login("want@x.example").json["mfa_enrollment_required"] is True)
    enrol(p)
    r.check("with one: 200", h.call("GET", "/v1/capsules", token=p["token"]).status == 200)
    h.again(require_mfa="all")
    q = h.person("all@x.example")
    r.check("the platform wants one of all", h.call("GET", "/v1/teams", token=q["token"]).code == "mfa_enrollment_required"
            and q["mfa_enrollment_required"] and me(q["token"]).status == 200)
    h.again(require_mfa="admins")
    r.check("of administrators only", h.call("GET", "/v1/teams", token=q["token"]).status == 200)
    h.one("UPDATE users SET platform_role = 'admin' WHERE email = 'all@x.example'")
    r.check("and he is one", h.call("GET", "/v1/teams", token=q["token"]).code == "mfa_enrollment_required")
    h.again(require_mfa="none")


def forced():
    p = h.person("forced@x.example")
    h.one("UPDATE users SET must_change_password = true WHERE email = 'forced@x.example'")
    a = h.login("forced@x.example")
    r.check("a forced change: login 200", a.status == 200 and a.json["must_change_password"])
    token = a.json["token"]
    others = [("GET", "/v1/teams"), ("PATCH", "/v1/me", {"name": "N"}), ("GET", "/v1/me/logins"), ("GET", "/v1/api-keys"),
              ("POST", "/v1/auth/switch-team", {"team_id": p["team_id"]}), ("GET", "/v1/me/mfa"), ("POST", "/v1/auth/reauth", {"password": PASSWORD})]
    got = [h.call(*x, token=token).code for x in others]
    r.check("all routes but four: 403", got == ["password_change_required"] * len(others), got)
    r.check("me and refresh work", me(token).status == 200 and h.call("POST", "/v1/auth/refresh", {"refresh_token": a.json["refresh_token"]}
                                                                       ).status == 200)
    b = h.call("POST", "/v1/me/password", {"current_password": PASSWORD, "new_password": "chosen by myself"}, token=token)
    r.check("the change frees", b.status == 204 and h.call("GET", "/v1/teams", token=token).status == 200, b)


person, row, key, paper = factors()
signing_in(person, row, key, paper)
again = reset_keeps(key)
proof(again, row, key)
wanted()
forced()
r.check("no program complained", not h.complaints(), h.complaints())
r.end()
