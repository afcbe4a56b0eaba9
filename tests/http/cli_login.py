#!/usr/bin/env python3
"""cli_login.py - sign-in of command line programs (spec 06 §13): grant, renewing, ending, and the keys that hang on it."""
import os
import sys
from urllib.parse import parse_qsl, urlencode, urlsplit

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
from people_house import House, Report  # noqa: E402

NEXT = "http://localhost:4711/cb"
R = Report()


def grant(h, token, where=NEXT):
    return h.call("POST", "/v1/auth/cli/grant", {"next": where}, token=token)


def said(a):
    """What the program gets in the query of next."""
    assert a.status == 200, a
    return dict(parse_qsl(urlsplit(a.json["location"]).query))


def renew(h, refresh, kind="refresh_token"):
    return h.call("POST", "/v1/auth/cli/token", raw=urlencode({"grant_type": kind, "refresh_token": refresh, "client_id": "x"}).encode())


def alive(h, token=None, key=None):
    a = h.call("GET", "/v1/capsules", x_api_key=key) if key else h.call("GET", "/v1/auth/whoami", token=token)
    return a.status == 200


def keys_of(h, token):
    a = h.call("GET", "/teams", token=token)
    assert a.status == 200, a
    return {t["name"]: t["apiKey"] for t in a.json}


def check_grant(h, ada):
    a = grant(h, ada["token"], NEXT + "?state=a%20b")
    got = said(a)
    R.check("it goes where the program listens", a.json["location"].startswith(NEXT + "?state=a%20b&email=ada%40x.example&"), a.json)
    R.check("with all that it needs", got["tokenEndpoint"] == "https://hutch.test/v1/auth/cli/token" and got["clientId"]
            and got["revokeEndpoint"] == "https://hutch.test/v1/auth/cli/revoke" and got["email"] == "ada@x.example", got)
    R.check("its access token is good", alive(h, got["accessToken"]))
    logins = [x["kind"] for x in h.call("GET", "/v1/me/logins", token=ada["token"]).json]
    R.check("it is listed as a login of a CLI", "cli" in logins, logins)
    bad = ("https://localhost:1/", "http://evil.example/", "http://localhost.evil.example/", "http://localhost@evil.example/", "http://127.0.0.1:0/",
           "http://127.0.0.1:70000/", "http://127.0.0.2/", "javascript:alert(1)", "http://localhost:1/#x", "http://localhost:1/ x", "http://[::1]:1/", "")
    R.check("nowhere else", all(grant(h, ada["token"], n).status == 400 for n in bad), [(n, grant(h, ada["token"], n).status) for n in bad])
    R.check("nobody's grant", h.call("POST", "/v1/auth/cli/grant", {"next": NEXT}).status == 401)
    return got


def check_renew(h, got):
    a = renew(h, got["refreshToken"])
    R.check("new tokens for a form", a.status == 200 and set(a.json) == {"access_token", "refresh_token", "token_type", "expires_in"}
            and alive(h, a.json["access_token"]), a)
    b = renew(h, got["refreshToken"])
    R.check("twice at once: the same successor", b.status == 200 and b.json["refresh_token"] == a.json["refresh_token"], b)
    for body in ("nothing", ""):
        c = renew(h, body)
        R.check("a token that is none is invalid_grant or invalid_request", c.status == 400 and c.json["error"].startswith("invalid_"), c)
    R.check("another grant_type", renew(h, "x", "password").json == {"error": "unsupported_grant_type"})
    web = h.login("ada@x.example").json
    R.check("a login by password has kind cli, too", renew(h, web["refresh_token"]).status == 200)
    return a.json


def check_keys(h, ada, tokens):
    h.call("POST", "/v1/teams", {"name": "Second"}, token=ada["token"])
    first, again = keys_of(h, tokens["access_token"]), keys_of(h, tokens["access_token"])
    R.check("a key for each team, told again", len(first) == 2 and first == again and all(k.startswith("e2b_") for k in first.values()), first)
    R.check("they are different and work", len(set(first.values())) == 2 and all(alive(h, key=k) for k in first.values()))
    R.check("a login in a browser is told none", set(keys_of(h, ada["token"]).values()) == {""})
    rows = [k for k in h.call("GET", "/v1/api-keys", token=ada["token"]).json if k["kind"] == "cli"]
    R.check("listed, named cli", len(rows) == 1 and rows[0]["name"] == "cli" and rows[0]["expires_at"], rows)
    R.check("audited once a team", h.audit("api_key", "create") >= 2)
    team = next(n for n, k in first.items() if n != "Second")
    R.check("one is removed", h.call("DELETE", "/v1/api-keys/" + rows[0]["id"], token=ada["token"]).status == 204)
    now = keys_of(h, tokens["access_token"])
    R.check("and not told again", now[team] == "" and not alive(h, key=first[team]) and now["Second"] == first["Second"], now)
    return first["Second"]


def check_viewer(h, ada, eve):
    got = said(grant(h, eve["token"]))
    h.sql("INSERT INTO users_teams (team_id, user_id, role, source) SELECT m.team_id, e.id, 'viewer', 'invitation' FROM users e, users a "
          "JOIN users_teams m ON m.user_id = a.id WHERE e.email = 'eve@x.example' AND a.email = 'ada@x.example' AND m.role = 'owner'", user="postgres")
    told = [t["apiKey"] for t in h.call("GET", "/teams", token=got["accessToken"]).json]
    R.check("a viewer has no key in the team, an owner has", sorted(bool(k) for k in told) == [False, False, True], told)


def check_end(h, tokens, key):
    R.check("the key works before", alive(h, key=key))
    a = h.call("POST", "/v1/auth/cli/revoke", raw=urlencode({"token": tokens["refresh_token"]}).encode())
    R.check("the program ends its login", a.status == 204, a)
    R.check("tokens and keys are gone with it", not alive(h, tokens["access_token"]) and not alive(h, key=key)
            and renew(h, tokens["refresh_token"]).json == {"error": "invalid_grant"})
    R.check("ending it again says nothing", h.call("POST", "/v1/auth/cli/revoke", raw=b"token=x").status == 204)


def check_revoked(h, ada):
    got = said(grant(h, ada["token"]))
    key = keys_of(h, got["accessToken"])["Second"]
    login = next(x for x in h.call("GET", "/v1/me/logins", token=ada["token"]).json if x["kind"] == "cli" and x["method"] == "activation")
    R.check("a person ends it", alive(h, key=key) and h.call("DELETE", "/v1/me/logins/" + login["id"], token=ada["token"]).status == 204)
    R.check("and its key with it", not alive(h, key=key) and not alive(h, got["accessToken"]))


def check_reuse(h, ada):
    got = said(grant(h, ada["token"]))
    new = renew(h, got["refreshToken"]).json["refresh_token"]
    renew(h, new)
    h.sql("UPDATE login_sessions SET rotated_at = now() - interval '1 minute' WHERE kind = 'cli'", user="postgres")
    R.check("an old token again is invalid_grant", renew(h, new).json == {"error": "invalid_grant"})
    R.check("and ends the login", not alive(h, got["accessToken"]))


def main():
    h = House()
    ada, eve = h.person("ada@x.example"), h.person("eve@x.example")
    got = check_grant(h, ada)
    tokens = check_renew(h, got)
    key = check_keys(h, ada, tokens)
    check_viewer(h, ada, eve)
    check_end(h, tokens, key)
    check_revoked(h, ada)
    check_reuse(h, ada)
    R.check("no complaints of the programs", not h.complaints(), h.complaints()[:3])
    R.end()


if __name__ == "__main__":
    main()
