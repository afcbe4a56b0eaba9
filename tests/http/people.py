#!/usr/bin/env python3
"""people.py - accounts from sign-up on: states, activation, passwords, logins, address (spec 01 rows 1-5, 8, 10, 12-15, 31, 32)."""
import time

from people_house import PASSWORD, House, Report, wait_for

r = Report()
h = House()
OTHER = "another long one"


def signing_up():
    both = h.at_once(2, lambda i: h.signup("two@x.example"))
    r.check("two sign-ups at once are 201 and alike", [a.status for a in both] == [201, 201] and both[0].seen() == both[1].seen(), both)
    r.check("they make one row and no team", h.one("SELECT count(*) || status FROM users WHERE email = 'two@x.example' GROUP BY status")
            == "1inactive" and h.one("SELECT count(*) FROM teams") == "1")
    h.signup("xy@x.example", "password of the X", "X")
    h.mailed("xy@x.example", "activate")
    h.signup("XY@x.example ", "password of the Y", "Y")
    a = h.activate(h.mailed("xy@x.example", "activate", 2))
    r.check("the second mail's link brings the second sign-up's name", a.status == 200 and a.json["name"] == "Y", a)
    r.check("and its password", h.login("xy@x.example", "password of the Y").status == 200)
    r.check("the first one's is none", h.login("xy@x.example", "password of the X").status == 401)
    again = h.activate(h.mailed("xy@x.example", "activate", 1))
    r.check("the first link tells that the account is active", again.code == "already_activated", again)
    r.check("and stays unused", h.one("SELECT count(*) FROM one_time_tokens WHERE purpose = 'activation' AND used_at IS NULL"
                                      " AND user_id = (SELECT id FROM users WHERE email = 'xy@x.example')") == "1")
    known, new = h.signup("xy@x.example"), h.signup("new@x.example")
    r.check("a known address is answered like a new one", known.seen() == new.seen(), (known, new))
    h.signup("xy@x.example")
    h.mailed_count = lambda t: len(h.mails("xy@x.example", t))
    r.check("its owner is told, once an hour", wait_for(lambda: h.mailed_count("already_registered") == 1)
            and not wait_for(lambda: h.mailed_count("already_registered") > 1, 1.5))


def old_signups():
    h.signup("old@x.example")
    h.mailed("old@x.example", "activate")
    before = h.one("SELECT id FROM users WHERE email = 'old@x.example'")
    h.one("UPDATE users SET created_at = now() - interval '31 minutes' WHERE email = 'old@x.example'")
    h.signup("old@x.example")
    after = h.one("SELECT id FROM users WHERE email = 'old@x.example'")
    r.check("a sign-up of 31 minutes ago is replaced", after and before != after, (before, after))
    r.check("with a row user/replace", h.audit("user", "replace") == 1)
    r.check("its link is dead", h.activate(h.mailed("old@x.example", "activate", 1)).code == "invalid_token")
    h.again(signup_answers="explicit")
    r.check("explicit: 409 signup_cooldown", h.signup("old@x.example").code == "signup_cooldown")
    r.check("explicit: 409 email_taken", h.signup("xy@x.example").code == "email_taken")
    h.again(signup_answers="uniform")
    h.call("POST", "/v1/auth/activate/resend", {"email": "old@x.example", "password": PASSWORD})
    r.check("resend mails again", bool(h.mailed("old@x.example", "activate", 3)))
    a = h.call("POST", "/v1/auth/activate/resend", {"email": "old@x.example", "password": "not the password"})
    b = h.call("POST", "/v1/auth/activate/resend", {"email": "none@x.example", "password": "not the password"})
    h.signup("week@x.example")
    h.mailed("week@x.example", "activate")
    h.one("UPDATE users SET created_at = now() - interval '8 days' WHERE email = 'week@x.example'")
    h.one("INSERT INTO auth_throttle VALUES ('\\x00', 'login', 1, now() - interval '31 days', 1, now() - interval '31 days')")
    job = h.add_jobs("retention.sweep", queue="tick")
    r.check("after a week nobody waits any more", h.all_in(job, "succeeded", 20) and h.one(
        "SELECT count(*) FROM users WHERE email = 'week@x.example'") == "0", h.states(job))
    r.check("old counters are forgotten", h.one("SELECT count(*) FROM auth_throttle WHERE subject = '\\x00'") == "0")
    r.check("resend says nothing about others", a.status == 204 and a.seen() == b.seen(), (a, b))


def activating_at_once():
    h.signup("race@x.example")
    token = h.mailed("race@x.example", "activate")
    all20 = h.at_once(20, lambda i: h.activate(token))
    good = [a for a in all20 if a.status == 200]
    r.check("20 activations of one token: one winner", len(good) == 1 and all(a.code == "invalid_token" for a in all20 if a.status != 200), all20)
    r.check("one team as owner, the default", h.one("SELECT count(*) FROM users_teams m JOIN users u ON u.id = m.user_id WHERE "
            "u.email = 'race@x.example' AND m.role = 'owner' AND m.is_default") == "1")
    r.check("the first activation makes no administrator", h.one("SELECT count(*) FROM users WHERE platform_role <> 'user'") == "0")
    r.check("methods says so", h.call("GET", "/v1/auth/methods").json == {"password": True, "signup": "open", "first_admin": False,
                                                                          "providers": []})


def first_admin():
    h.again(first_admin="first_activation")
    r.check("methods tells of the first administrator", h.call("GET", "/v1/auth/methods").json["first_admin"])
    who = ["first%d@x.example" % i for i in range(20)]
    for w in who:
        h.signup(w)
    tokens = [h.mailed(w, "activate", seconds=30) for w in who]
    h.at_once(20, lambda i: h.activate(tokens[i]))
    r.check("20 first activations make one administrator", h.one("SELECT count(*) FROM users WHERE platform_role = 'admin'") == "1"
            and h.audit("platform", "bootstrap") == 1)
    h.one("UPDATE users SET platform_role = 'user'")
    h.person("late@x.example")
    r.check("there is no second first time", h.one("SELECT count(*) FROM users WHERE platform_role = 'admin'") == "0")
    h.again(first_admin="cli")


def one_answer():
    h.person("alike@x.example")
    h.person("nopass@x.example")
    h.one("UPDATE users SET password_hash = NULL WHERE email = 'nopass@x.example'")
    h.person("gone@x.example")
    h.one("UPDATE users SET status = 'deleted', deleted_at = now(), purge_after = now() + interval '15 days' WHERE email = 'gone@x.example'")
    answers = [h.login(w + "@x.example", "wrong wrong wrong") for w in ("alike", "nobody", "nopass", "gone")]
    answers += [h.login("gone@x.example")]
    r.check("wrong, unknown, without password, deleted: one answer", len({repr(a.seen()) for a in answers}) == 1 and answers[0].status == 401,
            answers)
    r.check("each is one row, and one failure that counts", int(h.one(
        "SELECT count(*) FROM audit_logs WHERE action = 'login_failed' AND created_at > now() - interval '1 minute'")) >= 4)
    r.check("resets too", len({repr(h.call("POST", "/v1/me/password/reset", {"email": w + "@x.example"}).seen())
                               for w in ("alike", "nobody", "nopass", "gone")}) == 1)
    h.signup("gone@x.example")
    r.check("the owner of a deleted account learns the day", wait_for(lambda: h.mails("gone@x.example", "address_in_deletion"))
            and time.strftime("%Y", time.gmtime(time.time() + 15 * 86400)) in h.mails("gone@x.example", "address_in_deletion")[0][1],
            h.mails("gone@x.example"))
    h.one("UPDATE users SET status = 'disabled', disabled_at = now() WHERE email = 'alike@x.example'")
    r.check("disabled, after the right password", h.login("alike@x.example").code == "account_disabled")
    r.check("disabled, wrong password", h.login("alike@x.example", "wrong wrong wrong").status == 401)
    h.one("UPDATE users SET status = 'active', disabled_at = NULL WHERE email = 'alike@x.example'")
    h.signup("waits@x.example")
    r.check("not activated, after the right password", h.login("waits@x.example").code == "account_not_activated")


def passwords():
    def tried(p):
        return h.signup("pw%d@x.example" % abs(hash(p)), p, "Bob")
    r.check("7 code points: 400 on the field", "password" in tried("1a2b3c4").json["error"]["message"])
    r.check("8 letters of two bytes", tried("ü" * 8).status == 201)
    r.check("password1", tried("password1").status == 400)
    r.check("1,025 bytes", tried("x" * 1025).status == 400)
    for n in (73, 511, 512, 1024):
        who = "long%d@x.example" % n
        h.person(who, "x" * n)
        r.check("%d bytes, and the last one matters" % n, h.login(who, "x" * n).status == 200 and h.login(who, "x" * (n - 1) + "y").status == 401)
    h.person("nfc@x.example", "pa\u0308sswort 12")
    r.check("NFC and NFD are one password", h.login("nfc@x.example", "p\u00e4sswort 12").status == 200)
    h.one("UPDATE users SET password_hash = '$6$rounds=1000$saltsalt$' || 'x' WHERE email = 'nfc@x.example'")
    r.check("a hash that is none", h.login("nfc@x.example", "p\u00e4sswort 12").status == 401)
    # crypt(3) of "imported one" by another program
    h.one("UPDATE users SET password_hash = '$2b$04$abcdefghijklmnopqrstuu7wZ0GguEgE8rm9bqiekUYnKSFWqTsWS' WHERE email = 'nfc@x.example'")
    import_good = h.login("nfc@x.example", "imported one")
    r.check("an imported hash signs in, and becomes ours", import_good.status == 200 and h.one(
        "SELECT left(password_hash, 3) FROM users WHERE email = 'nfc@x.example'") == "h1:", import_good)


def refreshing():
    h.person("fresh@x.example")
    for _ in range(4):  # together is within 10 s: again when this machine stood still for as long
        cli, began, reused = h.login("fresh@x.example").json, time.monotonic(), h.audit("auth", "refresh_reuse")
        one = cli["refresh_token"]
        all20 = h.at_once(20, lambda i: h.call("POST", "/v1/auth/refresh", {"refresh_token": one}))
        if time.monotonic() - began < 9:
            break
    r.check("20 refreshes at once: all 200, one successor", [a.status for a in all20] == [200] * 20
            and len({a.json["refresh_token"] for a in all20}) == 1, all20)
    two = all20[0].json["refresh_token"]
    forged = two[:-4] + ("AAAA" if two[-4:] != "AAAA" else "BBBB")
    r.check("a forged one: 401", h.call("POST", "/v1/auth/refresh", {"refresh_token": forged}).status == 401)
    r.check("and the family lives", h.call("GET", "/v1/me", token=cli["token"]).status == 200)
    h.one("UPDATE login_sessions SET rotated_at = now() - interval '11 seconds'")
    r.check("the old one after 11 s: 401", h.call("POST", "/v1/auth/refresh", {"refresh_token": one}).status == 401)
    r.check("and the family is revoked", h.call("GET", "/v1/me", token=cli["token"]).status == 401
            and h.call("POST", "/v1/auth/refresh", {"refresh_token": two}).status == 401)
    r.check("with a row and a mail", h.audit("auth", "refresh_reuse") == reused + 1 and wait_for(lambda: h.mails("fresh@x.example", "session_stolen")))
    web = h.call("POST", "/v1/auth/login", {"email": "fresh@x.example", "password": PASSWORD})
    cookies = web.cookies
    r.check("a browser's tokens are cookies", sorted(cookies) == ["__Host-hutch_device", "__Host-hutch_refresh"]
            and "refresh_token" not in web.json, web.cookies)
    csrf = h.call("GET", "/v1/auth/csrf", cookies=cookies).json["csrf_token"]
    bare = h.call("POST", "/v1/auth/refresh", cookies=cookies, origin="https://hutch.test")
    r.check("cookie without X-CSRF-Token: 403", bare.code == "csrf_failed", bare)
    away = h.call("POST", "/v1/auth/refresh", cookies=cookies, origin="https://3000-abc.hutch.test", x_csrf_token=csrf)
    r.check("with the origin of a preview: 403", away.code == "csrf_failed", away)
    good = h.call("POST", "/v1/auth/refresh", cookies=cookies, origin="https://hutch.test", x_csrf_token=csrf)
    r.check("both right: 200", good.status == 200, good)
    site = h.call("POST", "/v1/auth/refresh", cookies=good.cookies, sec_fetch_site="same-origin", x_csrf_token=csrf)
    r.check("without an origin, same-origin by Sec-Fetch-Site: 200", site.status == 200, site)
    out = h.call("POST", "/v1/auth/logout", {}, token=site.json["token"])
    r.check("logout: the token is 401 at once", out.status == 204 and h.call("GET", "/v1/me", token=site.json["token"]).status == 401)
    r.check("logout without anything is 204", h.call("POST", "/v1/auth/logout").status == 204)


signing_up()
old_signups()
activating_at_once()
first_admin()
one_answer()
passwords()
refreshing()
r.check("no program complained", not h.complaints(), h.complaints())
r.end()
