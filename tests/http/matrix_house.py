"""matrix_house.py - the people, credentials and objects of the matrix, made in PostgreSQL. No test by itself."""
import hashlib
import json
import uuid

from crew import RUN, Person, call, sql, uuid_of
from matrix_rules import PREFIX

DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"
SECRET = f"sekret{RUN}"
PLATFORM = "team-" + "0" * 25


def wire(prefix, value):
    n, out = uuid.UUID(value).int, ""
    for _ in range(25):
        n, d = divmod(n, 36)
        out = DIGITS[d] + out
    return prefix + out


class Caller:
    """Who calls, and what the rules have to know of him. kind: none, user, key, host."""

    def __init__(self, name, kind, headers, **facts):
        self.name, self.kind, self.headers = name, kind, headers
        self.dead = self.disabled = self.forced = self.stale = False
        self.user = self.team = self.home = self.role = self.email = self.host = None
        self.platform, self.scopes = "user", ()
        self.__dict__.update(facts)


class House:
    """Team T with one of each role, team X of somebody else, and W, where nobody of the callers is."""

    def __init__(self):
        self.made, self.n = [], 0
        self.canary = {}  # team -> a word that only its people may read
        self.people()
        self.credentials()

    # ---- names

    def next(self):
        self.n += 1
        return self.n

    def name(self, what):
        return f"{what}-{RUN}-{self.next()}"

    def address(self):
        return f"new{self.next()}-{RUN}@matrix.example"

    def stranger(self):
        """The address of an account that is in no team yet, made with the other objects."""
        u, email = str(uuid.uuid4()), self.address()
        self.account(u, email)
        return email

    # ---- people

    def people(self):
        self.owner = Person("owner")
        self.t = self.owner.team
        self.by_name = {"owner": self.owner}
        for name, role in (("owner2", "owner"), ("admin", "admin"), ("member", "member"), ("mate", "member"), ("viewer", "viewer"), ("auditor", "auditor"),
                           ("removed", "viewer"), ("forced", "admin"), ("disabled", "member"), ("stale", "owner")):
            self.by_name[name] = Person(name).into(self.owner, role)
        for name in ("other", "operator", "root", "staleroot"):
            self.by_name[name] = Person(name)
        self.mate, self.other = self.by_name["mate"], self.by_name["other"]
        self.x = self.other.team
        self.neighbour = Person("neighbour").into(self.other, "member")  # whose the other team's objects are
        self.w = wire("team-", str(uuid.uuid4()))
        self.pawn = wire("usr-", str(uuid.uuid4()))
        ids = {n: uuid_of(p.id) for n, p in self.by_name.items()}
        self.canary = {self.t: f"canaryt{RUN}", self.x: f"canaryx{RUN}"}
        sql(f"""UPDATE teams SET name = 'canaryt{RUN}' WHERE id = '{uuid_of(self.t)}';
            UPDATE teams SET name = 'canaryx{RUN}' WHERE id = '{uuid_of(self.x)}';
            INSERT INTO teams (id, name, slug) VALUES ('{uuid_of(self.w)}', 'w{RUN}', '{self.slug()}');
            DELETE FROM users_teams WHERE user_id = '{ids["removed"]}' AND team_id = '{uuid_of(self.t)}';
            UPDATE users SET must_change_password = true WHERE id = '{ids["forced"]}';
            UPDATE users SET status = 'disabled', disabled_at = now() WHERE id = '{ids["disabled"]}';
            UPDATE users SET platform_role = 'operator' WHERE id = '{ids["operator"]}';
            UPDATE users SET platform_role = 'admin' WHERE id IN ('{ids["root"]}', '{ids["staleroot"]}')""")
        self.account(uuid_of(self.pawn), self.address())
        for name in ("other", "operator", "root", "staleroot"):  # an owner who leaves must not be the last
            self.row(f"INSERT INTO users_teams (team_id, user_id, role, source) VALUES ('{uuid_of(self.by_name[name].team)}', '{uuid_of(self.pawn)}', "
                     "'owner', 'added')")

    def age(self):
        """The proofs of two grow old; before, they made objects of their own."""
        for name in ("stale", "staleroot"):
            sql(f"UPDATE login_sessions SET auth_at = now() - interval '1 hour' WHERE user_id = '{uuid_of(self.by_name[name].id)}'")

    def slug(self):
        d = hashlib.sha256(f"{RUN} {self.next()}".encode()).hexdigest()
        return f"{d[:6]}-{d[6:12]}"

    def user_caller(self, name, person, role, **facts):
        team = person.team if role else None
        return Caller(name, "user", {"Authorization": f"Bearer {person.token}"}, user=person.id, team=team, role=role, email=person.email,
                      home=person.own_team, **facts)

    def api_key(self, person, scopes, revoked=False):
        a = person("POST", "/v1/api-keys", {"name": "m", "scopes": scopes})
        assert a.status == 201, a
        if revoked:
            assert person("POST", f"/v1/api-keys/{a.json['id']}/revoke").status == 200
        return a.json["key"]

    def credentials(self):
        p = self.by_name
        gone = Person("gone").into(self.owner, "admin")
        expired = gone.token
        sql(f"UPDATE login_sessions SET expires_at = now() - interval '1 second' WHERE user_id = '{uuid_of(gone.id)}'")
        data = ["capsules.view", "capsules.create", "capsules.connect", "capsules.update", "capsules.delete", "snapshots.manage", "templates.manage",
                "volumes.manage", "usage.view", "quota.view"]

        def key(name, person, role, scopes, **facts):
            text = self.api_key(person, scopes, facts.get("dead"))
            return Caller(name, "key", {"X-API-Key": text}, user=person.id, team=self.t, role=role, scopes=scopes, **facts)
        self.host_id, token = self.host()
        self.callers = [
            Caller("none", "none", {}),
            Caller("malformed token", "user", {"Authorization": f"Bearer {self.owner.token[:-6]}AAAAAA"}, dead=True),
            Caller("malformed key", "key", {"X-API-Key": "htc_" + "0" * 40}, dead=True),
            Caller("bad key beside a good token", "key", {"X-API-Key": "htc_1", "Authorization": f"Bearer {self.owner.token}"}, dead=True),
            Caller("expired token", "user", {"Authorization": f"Bearer {expired}"}, dead=True),
            key("revoked key", self.owner, "owner", data, dead=True),
            self.user_caller("owner", self.owner, "owner"), self.user_caller("admin", p["admin"], "admin"),
            self.user_caller("member", p["member"], "member"), self.user_caller("viewer", p["viewer"], "viewer"),
            self.user_caller("auditor", p["auditor"], "auditor"), self.user_caller("removed member", p["removed"], None),
            self.user_caller("forced change", p["forced"], "admin", forced=True),
            self.user_caller("disabled", p["disabled"], "member", disabled=True),
            self.user_caller("owner, proof is old", p["stale"], "owner", stale=True),
            self.user_caller("owner of another team", self.other, "owner"),
            self.user_caller("operator", p["operator"], "owner", platform="operator"),
            self.user_caller("platform admin", p["root"], "owner", platform="admin"),
            self.user_caller("platform admin, proof is old", p["staleroot"], "owner", platform="admin", stale=True),
            key("owner's key, view only", self.owner, "owner", ["capsules.view"]),
            key("owner's key, data plane", self.owner, "owner", data), key("member's key, data plane", p["member"], "member", data),
            key("admin's key, audit.view", p["admin"], "admin", ["audit.view"]),
            Caller("host", "host", {"X-Host-Token": token}, host=self.host_id)]

    def host(self):
        """A host of its own: announced, registered."""
        root = self.by_name["root"]
        a = root("POST", "/v1/hosts", {"name": self.name("mine")})
        assert a.status == 201, a
        b = call("POST", "/v1/hosts/register", {"token": a.json["registration_token"], "address": f"unix:/nowhere-{RUN}", "arch": "x86_64",
                                                 "cpu_cores": 1, "memory_mb": 1024, "disk_gb": 1, "accel": "tcg"})
        assert b.status == 201, b
        h = b.json["host"]["id"]
        sql(f"UPDATE hosts SET schedulable = false WHERE id = '{uuid_of(h)}'")
        return h, b.json["token"]

    # ---- objects: rows are collected, and written at once

    def row(self, statement):
        self.made.append(statement)

    def write(self):
        if self.made:
            path = f"/tmp/matrix-{RUN}.sql"
            with open(path, "w") as f:
                f.write("BEGIN;\n" + ";\n".join(self.made) + ";\nCOMMIT;\n")
            sql("SELECT 1", "-f", path)
        self.made = []

    def account(self, u, email, status="active", team=None):
        extra = ", now(), now() + interval '15 days'" if status == "deleted" else ", NULL, NULL"
        self.row(f"INSERT INTO users (id, source, email, name, status, webauthn_handle, email_verified_at, activated_at, deleted_at, purge_after) VALUES "
                 f"('{u}', 'signup', '{email}', 'pawn', '{status}', sha512('{u}'), now(), now(){extra})")
        if team:
            self.row(f"INSERT INTO users_teams (team_id, user_id, role, source) VALUES ('{uuid_of(team)}', '{u}', 'member', 'added')")

    def capsule(self, u, team, user):
        self.row(f"INSERT INTO capsules (id, team_id, owner_id, template_id, template_name, template_version, desired_state, observed_state, vcpus, "
                 f"memory_mb, disk_size_mb, name) SELECT '{u}', '{uuid_of(team)}', '{uuid_of(user)}', id, 'minimal', 1, 'stopped', 'stopped', 1, 512, 5120, "
                 f"'{self.canary.get(team, 'none')}.{self.next()}' FROM templates WHERE name = 'minimal' LIMIT 1")
        self.row(f"INSERT INTO capsule_ports (capsule_id, port, team_id) VALUES ('{u}', 8080, '{uuid_of(team)}')")

    def snapshot(self, u, team, user):
        self.row(f"INSERT INTO snapshots (id, team_id, name, memory, state, spec, created_by) VALUES ('{u}', '{uuid_of(team)}', "
                 f"'{self.canary.get(team, 'none')}.{self.next()}', false, 'failed', '{{}}', '{uuid_of(user)}')")

    def key(self, u, team, user):
        self.row(f"INSERT INTO api_keys (id, team_id, kind, created_by, name, key_hash, key_prefix, scopes) VALUES ('{u}', '{uuid_of(team)}', 'personal', "
                 f"'{uuid_of(user)}', '{self.canary.get(team, 'none')}', sha256('{u}'), 'htc_00', '{{capsules.view}}')")

    def connection(self, u, team, user):
        who = f"'{uuid_of(team)}', NULL" if team else f"NULL, '{uuid_of(user)}'"
        self.row(f"INSERT INTO storage_connections (id, team_id, user_id, name, endpoint, region, bucket, access_key_id, secret_enc) VALUES ('{u}', {who}, "
                 f"'{self.name('c')}', 'https://127.0.0.1:1', 'r', 'bucket', 'AK', '{SECRET}')")

    def invite(self, u, team, email, revoked=False):
        self.row(f"INSERT INTO team_invitations (id, team_id, email, token_hash, role, expires_at, revoked_at) VALUES ('{u}', '{uuid_of(team)}', "
                 f"'{email}', sha256('{u}'), 'viewer', now() + interval '1 day', {'now()' if revoked else 'NULL'})")

    def session(self, u, user):
        self.row(f"INSERT INTO login_sessions (id, user_id, kind, method, refresh_hash, auth_at, idle_expires_at, expires_at) VALUES ('{u}', "
                 f"'{uuid_of(user)}', 'web', 'password', sha256('{u}'), now(), now() + interval '1 day', now() + interval '1 day')")

    def team(self, u, deleted=False):
        self.row(f"INSERT INTO teams (id, name, slug, deleted_at) VALUES ('{u}', 'pawn{RUN}', '{self.slug()}', {'now()' if deleted else 'NULL'})")

    def snapshot_of_rows(self):
        """A digest of everything that a refused call could have touched, and the count of audit rows."""
        parts = []
        for table, cols in (("capsules", "id, team_id, owner_id, desired_state, generation, name, metadata"), ("snapshots", "*"), ("teams", "*"),
                            ("api_keys", "id, name, scopes, revoked_at, expires_at, rotated_to"), ("users_teams", "*"), ("team_invitations", "*"),
                            ("users", "id, email, name, status, platform_role, password_hash, must_change_password"), ("storage_connections", "*"),
                            ("identity_providers", "*"), ("mfa_factors", "*"), ("login_sessions", "id, revoked_at"), ("host_tags", "*"), ("capsule_ports", "*"),
                            ("hosts", "id, name, provider, schedulable, deleted_at"), ("host_tokens", "id")):
            where = {"capsules": f" WHERE name LIKE 'canary_{RUN}%'"}.get(table, "")
            parts.append(f"SELECT '{table}', count(*), md5(coalesce(string_agg(r::text, ',' ORDER BY r::text), '')) FROM (SELECT {cols} FROM {table}{where}) r")
        # a host that registered and says no more is marked down by the clock
        parts.append("SELECT 'audit_logs', count(*), '' FROM audit_logs WHERE action NOT IN ('use_denied', 'login_failed', 'marked_down')")
        return sql(" UNION ALL ".join(parts)).splitlines()


class Objects:
    """ids for paths: fresh ones for calls that may have an effect, shared ones for those that must have none."""

    def __init__(self, house):
        self.h, self.shared = house, {}

    def relations(self, kind, caller):
        """How an object of this kind can stand to the caller."""
        in_team, user = caller.team is not None, caller.kind in ("user", "key") and caller.user
        rel = ["random", "malformed"]
        if kind in ("capsule", "sandbox", "snapshot", "key"):
            rel += (["own"] if in_team and user else []) + (["mate"] if caller.team == self.h.t else []) + ["other"]
        elif kind == "connection":
            rel += (["own"] if user else []) + (["team"] if in_team else []) + ["mate", "other"]
        elif kind == "team":
            rel += (["own"] if in_team else []) + ["other", "deleted"]
        elif kind == "member":
            rel += (["mate"] if in_team else []) + ["other"]
        elif kind == "invitation":
            rel += (["own"] if in_team else []) + ["other", "gone"]  # revoked twice is revoked
        elif kind in ("my_invitation", "login", "factor"):
            rel += (["own"] if user else []) + ["other"]
        elif kind == "host":
            rel += ["own", "deleted"] + (["other"] if caller.kind == "host" else [])
        elif kind in ("user", "any_team"):
            rel += ["own", "gone"]
        elif kind == "any_capsule":
            rel += ["foreign"]
        elif kind == "platform_capsule":
            rel += ["own", "other"]
        elif kind == "idp":
            rel += ["own"]
        else:
            rel = ["word"]
        return rel

    def id(self, kind, rel, caller, fresh, team=None):
        if kind in ("word", "number"):
            return "word" if kind == "word" else "8080"
        prefix = PREFIX[kind]
        if rel == "malformed":
            return prefix + "z" * 25
        if rel == "random":
            return wire(prefix, str(uuid.uuid4()))
        if kind == "team" and rel in ("own", "other"):
            return caller.team if rel == "own" else self.h.x if caller.team != self.h.x else self.h.t
        if kind == "host" and caller.kind == "host" and rel == "own":
            return caller.host
        slot = (kind, rel, caller.name, team)
        if not fresh and slot in self.shared:
            return self.shared[slot]
        made = wire(prefix, self.make(kind, rel, caller, team))
        if not fresh:
            self.shared[slot] = made
        return made

    def make(self, kind, rel, c, team):
        h, u = self.h, str(uuid.uuid4())
        foreign = h.x if c.team != h.x else h.t
        where = foreign if rel in ("other", "foreign") else team or c.team or h.t
        who = {"own": c.user, "mate": h.mate.id, "other": h.neighbour.id if foreign == h.x else h.mate.id}.get(rel) or h.mate.id
        if kind == "platform_capsule":
            h.capsule(u, foreign if rel == "other" else PLATFORM, who)
        elif kind in ("capsule", "sandbox", "any_capsule", "snapshot", "key"):
            getattr(h, "capsule" if kind in ("sandbox", "any_capsule") else kind)(u, where, who)
        elif kind == "connection":
            h.connection(u, where if rel == "team" else None, who)
        elif kind == "member":
            h.account(u, h.address(), team=h.w if rel == "other" else where)
        elif kind == "invitation":
            h.invite(u, where, h.address(), rel == "gone")
        elif kind == "my_invitation":
            h.invite(u, h.w, c.email if rel == "own" else h.address())
        elif kind == "login":
            h.session(u, who)
        elif kind == "factor" and rel == "own" and not (c.forced or c.disabled or c.dead or c.kind != "user"):
            a = call("POST", "/v1/me/mfa", {"type": "totp", "name": "m"}, c.headers)
            assert a.status == 201, a
            return uuid_of(a.json["id"])
        elif kind == "factor":
            h.row(f"INSERT INTO mfa_factors (id, user_id, type, name, secret_enc) VALUES ('{u}', '{uuid_of(who)}', 'totp', 'm', '{SECRET}')")
        elif kind in ("team", "any_team"):
            h.team(u, rel in ("deleted", "gone"))
        elif kind == "user":
            h.account(u, h.address(), "deleted" if rel == "gone" else "active")
        elif kind == "host":
            h.row(f"INSERT INTO hosts (id, name, deleted_at) VALUES ('{u}', '{h.name('h')}', {'now()' if rel == 'deleted' else 'NULL'})")
            h.row(f"INSERT INTO host_tags (host_id, tag) VALUES ('{u}', 'word')")
        elif kind == "idp":
            h.row(f"INSERT INTO identity_providers (id, slug, type, name, managed_by, config) VALUES ('{u}', 'm{h.next()}x{RUN}', 'oidc', 'm', 'api', "
                  f"'{json.dumps({'issuer': 'https://127.0.0.1:1'})}')")
        return u
