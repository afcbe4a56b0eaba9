"""people.py - accounts, teams and capsules for the tests of administration and deletion."""
import os
import re
import subprocess
import uuid

from fastcgi import Api, Person
from private import BUILD, TOP, Private, wait_for, wire

PASSWORD = "correct horse battery staple"
OTHER = "another horse battery staple"


class House(Private):
    """Private servers with an API, an administrator, and a host whose agent says yes."""

    def __init__(self, **conf):
        conf.setdefault("auth", {}).update(rate_limits="off", hash_cost="1", hash_parallel="4")
        conf.setdefault("workers", {}).update({"lease_sec": 5, "capsule_slots": 2, "mail_slots": 1, "purge_slots": 2, "tick_slots": 1, "fast_slots": 0} | conf["workers"])
        super().__init__(**conf)

    def open(self):
        self.start()
        self.conf["db"]["url"] = "host=%s dbname=hutch user=hutch_app" % self.dir
        self.conf["db"]["owner_url"] = "host=%s dbname=hutch user=hutch_owner" % self.dir
        self.conf.setdefault("api", {})["ops_socket"] = self.dir + "/ops.sock"
        self.write_conf()
        self.super("CREATE TABLE schema_migrations (number int PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())")
        self.super("INSERT INTO quotas (team_id, capsules, vcpus, memory_mb, disk_mb) VALUES ('00000000-0000-0000-0000-000000000000', 40, 80, 81920, 409600) ON CONFLICT DO NOTHING")
        with open(self.dir + "/password", "w") as f:
            f.write(PASSWORD + "\n")
        self.ctl("admin", "create", "--email", "root@house.test", "--name", "Root", "--password-file", self.dir + "/password")
        self.api = Api(self)
        self.root = self.enter("root@house.test")
        return self

    def stop(self):
        super().stop()
        if hasattr(self, "api"):
            self.api.end()

    def super(self, text):
        return self.psql("postgres", "hutch", text)

    def ctl(self, *words, ok=True):
        r = subprocess.run([os.path.join(BUILD, "cli/hutchctl"), "-c", self.dir + "/hutch.conf", *words], capture_output=True, text=True)
        assert r.returncode == 0 or not ok, r.stderr
        return r

    def enter(self, email, password=PASSWORD):
        token = self.api.login(email, password)
        assert isinstance(token, str), token
        return Person(self.api, email, token)

    def person(self, name, role="user", team=True):
        """An account with a team of its own, made without a mail or a hash: the password is root's."""
        email, u = name + "@house.test", str(uuid.uuid4())
        self.super("INSERT INTO users (id, source, email, name, status, platform_role, password_hash, webauthn_handle, activated_at, email_verified_at) "
                   "SELECT '%s', 'signup', '%s', '%s Canary', 'active', '%s', password_hash, sha256('%s') || sha256('x%s'), now(), now() "
                   "FROM users WHERE email = 'root@house.test'" % (u, email, name.capitalize(), role, u, u))
        if team:
            t = self.team(name.capitalize() + " Canary's Team")
            self.join(t, u, "owner", True)
        return self.enter(email)

    def team(self, name):
        t = str(uuid.uuid4())
        self.super("INSERT INTO teams (id, name, slug) VALUES ('%s', $$%s$$, '%s-%s')" % (t, name, t[:6], t[30:]))
        return t

    def join(self, team, user, role="member", default=False):
        self.super("INSERT INTO users_teams (team_id, user_id, role, is_default, source) VALUES ('%s', '%s', '%s', %s, 'added')"
                   % (team, user, role, default))

    def host(self, agent):
        h = str(uuid.uuid4())
        self.super("INSERT INTO hosts (id, name, address, status, last_heartbeat_at) VALUES ('%s', 'h', 'unix:%s', 'online', now())" % (h, agent.path))
        self.super("INSERT INTO templates (id, team_id, name, current_version) VALUES ('%s', '00000000-0000-0000-0000-000000000000', 'minimal', 1)" % h)
        self.super("INSERT INTO template_versions (template_id, version, digest, size_bytes, disk_size_mb) VALUES ('%s', 1, 'x', 1, 1024)" % h)
        self.host_id = h

    def capsule(self, team, state, owner=None):
        c = str(uuid.uuid4())
        self.super("INSERT INTO capsules (id, team_id, owner_id, template_id, template_name, template_version, host_id, observed_state, desired_state, "
                   "vcpus, memory_mb, disk_size_mb, missing_from) VALUES ('%s', '%s', %s, '%s', 'minimal', 1, %s, '%s', '%s', 1, 128, 1024, %s)"
                   % (c, team, "'%s'" % owner if owner else "NULL", self.host_id,
                      "NULL" if state in ("pending", "stopped") else "'%s'" % self.host_id, state,
                      {"paused": "paused", "hibernated": "hibernated", "stopped": "stopped"}.get(state, "running"),
                      "'running'" if state == "missing" else "NULL"))
        return c

    def key(self, person, name="k"):
        a = person("POST", "/v1/api-keys", {"name": name})
        assert a.status == 201, a
        return a.json["key"]

    def job(self, job):
        if job.startswith("job-"):
            job = self.uuid_of(job)
        row = self.rows("SELECT state, attempts, crashes, coalesce(error_text, ''), coalesce(result::text, ''), total, done, failed, coalesce(phase, '') "
                        "FROM jobs WHERE id = '%s'" % job)
        return row[0] if row else None

    @staticmethod
    def uuid_of(text):
        n = 0
        for c in text[-25:]:
            n = n * 36 + int(c, 36)
        return str(uuid.UUID(int=n))

    def ended(self, job, seconds=30):
        """Waits for the job's end; what delays it is due at once."""
        job = self.uuid_of(job) if job.startswith("job-") else job
        def look():
            self.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE state = 'queued' AND run_at < now() + interval '5 minutes' AND run_at > now()")
            return (self.job(job) or ["gone"])[0] not in ("queued", "running")
        wait_for(look, seconds, 0.3)
        return self.job(job)

    def audit(self, where="true"):
        return self.rows("SELECT team_id, resource_type || '/' || action, coalesce(resource_id, ''), metadata FROM audit_logs WHERE %s ORDER BY created_at" % where)

    def chains_verify(self):
        return self.ctl("audit", "verify", ok=False)

    def everywhere(self, *canaries):
        """Tables, and how many of their rows have one of the texts; ids in both forms."""
        out = {}
        tables = self.super("SELECT relname FROM pg_class WHERE relkind IN ('r','p') AND NOT relispartition AND relnamespace = 'public'::regnamespace").split()
        for t in tables:
            n = int(self.super("SELECT count(*) FROM %s x WHERE %s" % (t, " OR ".join("strpos(x::text, $c$%s$c$) > 0" % c for c in canaries))))
            if n:
                out[t] = n
        return out

    def crashed_at(self, point, job, seconds=20):
        """A worker that dies at the named place ran the job; then a whole one ends it."""
        env = dict(os.environ, HUTCH_CRASH_AT=point)
        with open(self.dir + "/crash.log", "ab") as log:
            w = subprocess.Popen([os.path.join(BUILD, "workers/hutch-worker"), "-c", self.dir + "/hutch.conf"], stderr=log, env=env)
        self.workers.append(w)
        died = wait_for(lambda: int((self.job(job) or [0, 0, 0])[2]) > 0, seconds, 0.05)
        w.kill()
        w.wait()
        return died
