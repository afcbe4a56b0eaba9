"""matrix_rules.py - what the matrix knows of each route: its objects, its body, and who may by the rules. No test by itself.

The routes come from the programs (hutch-api -T routes, hutch-gateway -T routes). A route that this file does not cover
fails tests/check/matrix. Nothing here is read back from answers: expected() is spec 01 §2.6 written down a second time.
"""
import json
import os
import re
import subprocess

PROGRAMS = ("fcgi-app/hutch-api", "gateway/hutch-gateway")

# What the parameters of a path name: the first row that fits. A "word" is no object: one value is enough.
PARAMS = [
    (r"^/v1/teams/", "id", "team"), (r"^/v1/teams/", "uid", "member"), (r"^/v1/teams/", "inv", "invitation"),
    (r"^/v1/me/invitations/", "inv", "my_invitation"), (r"^/v1/me/logins/", "id", "login"), (r"^/v1/me/mfa/", "id", "factor"),
    (r"^/v1/me/providers/", "provider", "word"), (r"/auth/oauth/", "idp", "word"),
    (r"^/v1/api-keys/", "id", "key"), (r"^/v1/capsules/", "id", "capsule"), (r"^/v1/capsules/", "sel", "word"), (r"^/v1/capsules/", "port", "number"),
    (r"^/v1/snapshots/", "id", "snapshot"), (r"^/v1/hosts/", "id", "host"), (r"^/v1/hosts/", "tag", "word"),
    (r"^/v1/admin/idps/", "id", "idp"), (r"^/v1/admin/users/", "id", "user"), (r"^/v1/admin/teams/", "id", "any_team"),
    (r"^/v1/admin/capsules/{id}/", "id", "platform_capsule"), (r"^/v1/admin/capsules/", "id", "any_capsule"), (r"^/v1/admin/capsules/", "sel", "word"),
    (r"^/v1/storage/connections/", "id", "connection"),
    (r"^(/v2)?/sandboxes/", "id", "sandbox"), (r"^(/v2)?/templates/", "id", "word"), (r"^/templates/", "alias", "word"), (r"^/teams/", "id", "word"),
]
PREFIX = {"team": "team-", "member": "usr-", "invitation": "inv-", "my_invitation": "inv-", "login": "ses-", "factor": "mfa-", "key": "key-",
          "sandbox": "", "capsule": "cl-", "snapshot": "snp-", "host": "host-", "idp": "idp-", "user": "usr-", "any_team": "team-", "any_capsule": "cl-",
          "platform_capsule": "cl-",
          "connection": "cn-"}


class Bad(dict):
    """A body that is refused as invalid, after authorisation: the call is allowed, and does not happen."""


# The smallest body of each route that takes one; a value may be a function of (house, caller).
BODY = {
    "POST /v1/auth/signup": Bad(), "POST /v1/auth/activate": Bad(), "POST /v1/auth/activate/resend": Bad(), "POST /v1/auth/login": Bad(),
    "POST /v1/auth/mfa": Bad(), "POST /v1/auth/refresh": {}, "POST /v1/auth/logout": {}, "POST /v1/auth/exchange": Bad(),
    "POST /v1/auth/cli/grant": Bad(next="http://elsewhere.example/"),
    "POST /v1/auth/tickets": Bad(purpose=5), "POST /v1/capsules/{id}/processes/{sel}/stdin": Bad(data=5),
    "POST /v1/auth/reauth": Bad(password=5), "POST /v1/auth/switch-team": lambda h, c: {"team_id": c.home},
    "PATCH /v1/me": {"name": "Matrix"}, "DELETE /v1/me": Bad(confirmation="no"), "POST /v1/me/email": Bad(email=5),
    "POST /v1/me/email/confirm": Bad(), "POST /v1/me/password": Bad(new_password=5), "POST /v1/me/password/reset": Bad(),
    "POST /v1/me/password/reset/confirm": Bad(), "POST /v1/me/mfa": {"type": "totp", "name": "m"},
    "POST /v1/me/mfa/{id}/verify": {"code": "000000"},
    "POST /v1/teams": lambda h, c: {"name": h.name("made")}, "PATCH /v1/teams/{id}": {"kind": "team"},
    "POST /v1/permissions/check": {"permissions": ["view"]},
    "POST /v1/teams/{id}/members": lambda h, c: {"email": h.stranger(), "role": "viewer"},
    "PATCH /v1/teams/{id}/members/{uid}": {"role": "viewer"}, "POST /v1/teams/{id}/invitations": {"role": "viewer"},
    "POST /v1/team-invitations/preview": {"token": "none"}, "POST /v1/team-invitations/accept": {"token": "none"},
    "POST /v1/team-invitations/decline": {"token": "none"},
    "POST /v1/api-keys": {"name": "m"}, "PATCH /v1/api-keys/{id}": {"name": "m2"}, "POST /v1/api-keys/{id}/rotate": {},
    "POST /v1/capsules": Bad(template="minimal", vcpus=9999), "PATCH /v1/capsules/{id}": {"metadata": {"m": "1"}},
    "POST /v1/capsules/{id}/resume": {}, "POST /v1/capsules/{id}/hibernate": {}, "POST /v1/capsules/{id}/recover": {},
    "POST /v1/capsules/{id}/fork": {}, "POST /v1/capsules/{id}/events": {"type": "app.matrix"}, "POST /v1/capsules/{id}/ports": {"port": 8080}, "POST /v1/capsules/{id}/snapshots": {},
    "POST /v1/capsules/{id}/rollback": {"snapshot": "snp-0000000000000000000000001"}, "PATCH /v1/snapshots/{id}": {"description": "m"},
    "POST /v1/snapshots/{id}/restore": {}, "PUT /v1/capsules/{id}/snapshot-policy": {"cron": "0 3 * * *"},
    "POST /v1/hosts": lambda h, c: {"name": h.name("host")}, "PATCH /v1/hosts/{id}": {"schedulable": True}, "POST /v1/hosts/register": Bad(),
    "POST /v1/hosts/auth/refresh": Bad(), "POST /v1/hosts/{id}/heartbeat": {}, "POST /v1/hosts/{id}/reports": {"sequence": 1, "changes": []},
    "POST /v1/hosts/{id}/drain": {}, "POST /v1/hosts/{id}/tags": {"tag": "m"},
    "POST /v1/admin/idps": Bad(slug=5), "PATCH /v1/admin/idps/{id}": {"name": "m"},
    "POST /v1/admin/users": lambda h, c: {"email": h.address(), "name": "m"}, "PATCH /v1/admin/users/{id}": {"name": "m"},
    "PUT /v1/admin/users/{id}/active": {"active": False}, "PATCH /v1/admin/users/{id}/status": {"status": "disabled"},
    "PATCH /v1/admin/teams/{id}": {"kind": "project"}, "PUT /v1/admin/teams/{id}/owner": lambda h, c: {"user_id": h.pawn},
    "PUT /v1/admin/teams/{id}/byoc": {"enabled": True}, "PUT /v1/admin/scaling": Bad(pools=5),
    "POST /v1/storage/connections": Bad(name=5), "PATCH /v1/storage/connections/{id}": {"secret_access_key": "new"},
    "POST /v1/capsules/{id}/exec": {"cmd": "true"}, "POST /v1/capsules/{id}/files/list": {"path": "/"},
    "POST /v1/capsules/{id}/files/stat": {"path": "/"}, "POST /v1/capsules/{id}/files/mkdir": {"path": "/m"},
    "POST /v1/capsules/{id}/files/move": {"source": "/m", "destination": "/n"}, "POST /v1/capsules/{id}/files/remove": {"path": "/m"},
    "POST /v1/capsules/{id}/files/read": {"path": "/m"}, "POST /v1/capsules/{id}/files/stream/read": {"path": "/m"},
}
# The routes of spec 06; the capsules of the matrix are stopped, and to these routes such are none.
BODY.update({
    "POST /v2/sandboxes": Bad(templateID=5), "POST /sandboxes": Bad(templateID=5), "POST /v2/sandboxes/{id}/connect": {}, "POST /sandboxes/{id}/connect":
    {"timeout": 60}, "POST /sandboxes/{id}/resume": {}, "POST /sandboxes/{id}/timeout": {"timeout": 60}, "POST /sandboxes/{id}/refreshes": {},
    "POST /sandboxes/{id}/pause": {}, "PUT /sandboxes/{id}/network": {}, "POST /sandboxes/{id}/fork": {}, "POST /sandboxes/{id}/snapshots": {},
    "PATCH /templates/{id}": {"public": False}, "PATCH /v2/templates/{id}": {"public": False},
})
# What the Platform's capsules have is asked for in the same way.
BODY.update({name.replace("/v1/", "/v1/admin/"): body for name, body in BODY.items() if name == "POST /v1/capsules" or
             re.match(r"POST /v1/capsules/{id}/(exec|files|processes)(/|$)", name)})
QUERY = {"GET /v1/events": "?events=No%20Name", "GET /v1/users/search": "?q=nobody@matrix", "DELETE /v1/storage/connections/{id}": "?objects=keep"}

# Routes without credential: the one answer that these bodies get, whoever asks.
OPEN = {
    "GET /v1/health": {200}, "POST /v1/auth/signup": {400}, "POST /v1/auth/activate": {400}, "POST /v1/auth/activate/resend": {400, 204},
    "POST /v1/auth/login": {400}, "POST /v1/auth/mfa": {400}, "POST /v1/auth/refresh": {401}, "POST /v1/auth/logout": {204},
    "POST /v1/auth/cli/token": {400}, "POST /v1/auth/cli/revoke": {400},
    "GET /v1/auth/csrf": {401}, "GET /v1/auth/methods": {200}, "GET /auth/oauth/{idp}": {302, 303, 404}, "GET /auth/oauth/{idp}/callback": {302, 303, 400, 404},
    "GET /v1/auth/oauth/{idp}": {302, 303, 404}, "GET /v1/auth/oauth/{idp}/callback": {302, 303, 400, 404}, "POST /v1/auth/exchange": {400},
    "POST /v1/me/email/confirm": {400}, "POST /v1/me/password/reset": {204}, "POST /v1/me/password/reset/confirm": {400},
    "POST /v1/team-invitations/preview": {400, 404}, "POST /v1/hosts/register": {400}, "POST /v1/hosts/auth/refresh": {400},
}

# Allowed, and refused all the same for what is (not) there: status and code.
STATE = {
    "GET /v1/me/providers/{provider}/connect": {(404, "provider_not_found")}, "DELETE /v1/me/providers/{provider}": {(404, "not_found")},
    "POST /v1/me/mfa/{id}/verify": {(401, "unauthorized")}, "POST /v1/me/mfa/backup-codes": {(404, "not_found")},
    "POST /v1/team-invitations/accept": {(404, "not_found")}, "POST /v1/team-invitations/decline": {(404, "not_found")},
    "POST /v1/capsules/{id}/rollback": {(404, "not_found")}, "POST /v1/admin/idps/{id}/test": {(502, "http_error")},
    # nothing answers at the address of these rows: told by who asks there, after authorisation
    "PATCH /v1/storage/connections/{id}": {(400, "invalid_request")},
}
NONE = ["POST /v2/sandboxes/{id}/connect", "POST /sandboxes/{id}/connect", "POST /sandboxes/{id}/resume", "POST /sandboxes/{id}/timeout",
        "POST /sandboxes/{id}/refreshes", "POST /sandboxes/{id}/pause", "PUT /sandboxes/{id}/network", "POST /sandboxes/{id}/fork",
        "POST /sandboxes/{id}/snapshots", "GET /sandboxes/{id}", "DELETE /sandboxes/{id}", "GET /sandboxes/{id}/metrics", "DELETE /templates/{id}",
        "PATCH /templates/{id}", "PATCH /v2/templates/{id}", "GET /templates/{id}", "GET /templates/aliases/{alias}", "GET /teams/{id}/metrics", "GET /teams/{id}/metrics/max"]
STATE.update({name: {(404, "not_found")} for name in NONE})
# Their callers would lose what they need for the rest: made after all others, one by one (see matrix.py).
LATE = ["POST /v1/teams/{id}/leave", "DELETE /v1/me/logins", "DELETE /v1/teams/{id}", "POST /v1/auth/logout"]


class Route:
    def __init__(self, line):
        self.method, self.path, self.pool, self.may, flags, self.key, self.doc = line.split("\t")
        self.flags = set(flags.split())
        self.name = f"{self.method} {self.path}"
        self.params = re.findall(r"{(\w+)}", self.path)
        self.kinds = [self.kind(p) for p in self.params]

    def kind(self, param):
        return next((kind for where, name, kind in PARAMS if name == param and re.search(where, self.path)), None)


def routes(build):
    found = []
    for program in PROGRAMS:
        out = subprocess.check_output([os.path.join(build, program), "-T", "routes"], text=True)
        found += [Route(line) for line in out.splitlines()]
    return found


def bodies(build):
    """name -> the JSON body's required fields, of the routes that have one."""
    found = {}
    for program in PROGRAMS:
        paths = json.loads("{" + subprocess.check_output([os.path.join(build, program), "-T", "paths"], text=True) + "}")
        for path, ops in paths.items():
            for method, op in ops.items():
                for kind, content in op.get("requestBody", {}).get("content", {}).items():
                    if kind == "application/json":
                        found[f"{method.upper()} {path}"] = content["schema"].get("required") or []
    return found


def faults(build):
    """What the rules do not cover, or cover for nothing: sentences."""
    all_routes, wanted = routes(build), bodies(build)
    names = {r.name for r in all_routes}
    for r in all_routes:
        for p, kind in zip(r.params, r.kinds):
            if not kind:
                yield f"{r.name}: nothing says what object {{{p}}} is: a row of PARAMS in tests/http/matrix_rules.py"
        if r.may == "anyone" and r.name not in OPEN:
            yield f"{r.name}: open to everybody, and nothing says what it answers: a row of OPEN"
        if r.name not in wanted:
            continue
        if r.name not in BODY:
            yield f"{r.name}: takes a body, and nothing says which: a row of BODY"
        elif isinstance(BODY[r.name], dict) and not isinstance(BODY[r.name], Bad):
            for field in wanted[r.name]:
                if field not in BODY[r.name]:
                    yield f"{r.name}: its body lacks the needed field \"{field}\""
    for table in (BODY, OPEN, STATE, QUERY, LATE):
        for name in table:
            if name not in names:
                yield f"{name}: a row of the matrix for a route that does not exist"


# ---- the decision

ALLOWED = frozenset({200, 201, 202, 204, 400, 409})


class Want:
    """What an answer has to be: one of these statuses, with this code; allowed: it may have an effect."""

    def __init__(self, statuses, code=None, allowed=False):
        self.statuses, self.code, self.allowed = frozenset(statuses), code, allowed

    def __str__(self):
        return "allowed" if self.allowed else f"{'/'.join(str(s) for s in sorted(self.statuses))}{' ' + self.code if self.code else ''}"


def no(status, code):
    return Want({status}, code)


UNAUTHORIZED, NOT_FOUND, FORBIDDEN, MALFORMED = no(401, "unauthorized"), no(404, "not_found"), no(403, "forbidden"), no(400, "invalid_request")
PLATFORM = {"platform operator": ("operator", "admin"), "platform admin": ("admin",)}
# The same, or owners and administrators of a team for its own hosts; those of the house are the platform's.
HOSTS = {"platform operator or hosts.manage": ("operator", "admin"), "platform admin or hosts.manage": ("admin",)}


def own_only(perm, role):
    """The one line that the table permissions does not have: a member's "own" (spec 01 §2.6)."""
    return role == "member" and perm in ("capsules.update", "capsules.delete", "snapshots.manage", "templates.manage", "volumes.manage")


def credential(route, caller):
    """Rules 1 and 2: who is it, and in which state; None: goes on."""
    if caller.kind == "none" or caller.dead or (caller.kind == "host" and route.pool == "gateway"):  # reads no X-Host-Token
        return UNAUTHORIZED
    if caller.disabled:
        return no(403, "account_deactivated")
    if caller.forced and caller.kind == "user" and "before-change" not in route.flags:
        return no(403, "password_change_required")
    if (caller.kind == "host") != (route.may == "host"):
        return FORBIDDEN if caller.kind == "host" else UNAUTHORIZED
    if route.may in PLATFORM and (caller.kind != "user" or caller.platform not in PLATFORM[route.may]):
        return FORBIDDEN
    if route.may in HOSTS and caller.kind != "user":
        return FORBIDDEN
    if route.may == "signed in" and caller.kind != "user":
        return FORBIDDEN
    return None


def of_team(route, caller, rel, roles):
    """Rules 3 to 6 without the object: may the caller, in the team of his credential?"""
    if "in-team" in route.flags and caller.kind == "user":
        if rel[0] == "malformed":
            return MALFORMED
        if rel[0] != "own":
            return NOT_FOUND
    perm = route.may
    if perm in HOSTS and caller.platform not in HOSTS[perm]:
        if not (caller.team and caller.role in roles["hosts.manage"]):
            return FORBIDDEN
        return FORBIDDEN if route.name == "POST /v1/hosts" else NOT_FOUND if "host" in route.kinds and rel[0] != "malformed" else None
    if perm == "view, or key audit.view":
        perm = "audit.view" if caller.kind == "key" else "view"
    if perm not in roles:
        return None  # asks for no permission of a team
    if not caller.team:
        return no(403, "no_team")
    if caller.kind == "key" and perm not in caller.scopes:
        return FORBIDDEN
    return None if caller.role in roles[perm] else FORBIDDEN


def of_object(route, caller, kind, rel, roles):
    """The object's turn: is it there for the caller, and his to change?"""
    if rel in ("other", "random", "deleted"):
        return FORBIDDEN if route.may == "host" else NOT_FOUND
    if rel == "mate" and kind in ("capsule", "snapshot") and own_only(route.may, caller.role):
        return FORBIDDEN
    if rel == "mate" and kind == "key" and caller.role not in roles["keys.manage"]:
        return NOT_FOUND
    if kind == "connection" and (rel == "mate" or (rel == "team" and not (caller.team and caller.role in roles["storage.manage"]))):
        return NOT_FOUND
    return None


def expected(route, caller, rel, roles):
    """rel: how the object of each parameter stands to the caller: own, mate, team, other, foreign (to whom teams do not matter), deleted, gone, random, malformed, word."""
    if route.may == "anyone":
        return Want(OPEN[route.name], allowed=True)
    if {"of-platform", "websocket"} <= route.flags:
        return UNAUTHORIZED  # who asks says so in the first message of the WebSocket, and nowhere else (spec 02 §3.1)
    refused = credential(route, caller) or of_team(route, caller, rel, roles)
    if not refused and caller.stale and caller.kind == "user" and "proof" in route.flags:
        refused = no(403, "reauth_required")
    if not refused and "malformed" in rel:
        refused = NOT_FOUND if "sandbox" in route.kinds else MALFORMED
    for kind, how in zip(route.kinds, rel):
        refused = refused or of_object(route, caller, kind, how, roles)
    if refused:
        return refused
    also = {s for s, _ in STATE.get(route.name, ())} | ({404} if "gone" in rel else set())
    return Want(ALLOWED | also, allowed=True)
