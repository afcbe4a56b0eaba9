#!/usr/bin/env python3
"""deletion.py - accounts and teams end: at once what must, by jobs the rest, whatever fails or dies meanwhile (spec 01 §6, §8).

The dependency tables of spec 01 §6 are this list: after a purge every table, Redis and the mails are searched for the person.
"""
import glob
import sys
import threading
import time

from deletion_house import agent, due, erased, h, purgeable, r, reload, s3, states, traces, work
from people import PASSWORD, wait_for


def disable_and_back():
    o, m = h.person("olga"), h.person("mike")
    h.join(o.team, m.uuid)
    u = h.team("elsewhere")
    h.join(u, o.uuid)
    for state in ("running", "paused", "hibernated", "pending", "missing", "stopped"):
        h.capsule(o.team, state, o.uuid)
    key = h.key(o)
    h.super("INSERT INTO api_keys (id, team_id, kind, created_by, name, key_hash, key_prefix, scopes) VALUES (gen_random_uuid(), '%s', 'personal', "
            "'%s', 'u', sha256('u'), 'htc_', '{capsules.view}')" % (u, o.uuid))
    mine = m("POST", "/v1/auth/switch-team", {"team_id": o.team_id}).json["token"]
    a = h.root("PUT", "/v1/admin/users/%s/active" % o.id, {"active": False})
    job = a.headers.get("x-job-id", "")
    r.check("disable: 204 and its job", a.status == 204 and job, a)
    r.check("his next request: 403 account_deactivated", o("GET", "/v1/me").code == "account_deactivated", o("GET", "/v1/me"))
    r.check("his keys in all teams are gone", h.sql("SELECT count(*) FROM api_keys WHERE created_by = '%s'" % o.uuid) == "0")
    r.check("his key is refused", h.api.call("GET", "/v1/capsules", x_api_key=key).status == 401)
    frozen = h.api.call("POST", "/v1/capsules", {}, mine)
    r.check("a member's create in his team: team_frozen", frozen.code == "team_frozen", frozen)
    again = h.root("PUT", "/v1/admin/users/%s/active" % o.id, {"active": False})
    r.check("disabled again: 204, no second row", again.status == 204 and "x-job-id" not in again.headers and
            len(h.audit("action = 'deactivate'")) == 1, again)
    died = h.crashed_at("user.disable.item", job)
    items = int(h.sql("SELECT count(*) FROM job_items WHERE job_id = '%s'" % h.uuid_of(job)))
    r.check("a worker is killed between two capsules", died and 0 < items < 5, (h.job(job), items))
    work()
    end = h.ended(job)
    r.check("the job follows them to the end", end[0] == "succeeded" and states(o.team) == {"stopped": "6"}, (end, states(o.team)))
    rows = h.audit("action = 'destroy' AND team_id = '%s'" % o.team)
    r.check("each destroyed capsule has a row of its own", len(rows) == 5 and all("user_disabled" in x[3] for x in rows), rows)
    h.super("UPDATE users SET disabled_at = NULL, activated_at = now() + interval '1 year' WHERE id = '%s'" % o.uuid)
    back = h.root("PATCH", "/v1/admin/users/%s/status" % o.id, {"status": "active"})
    r.check("enabled again, with odd dates: 200, the login works", back.status == 200 and h.enter(o.email), back)
    thawed = h.api.call("GET", "/v1/teams", token=mine)
    r.check("the team is thawed", any(t["id"] == o.team_id and not t["frozen"] for t in thawed.json), thawed)
    n = len(h.audit("action = 'activate'"))
    r.check("enabled twice: 200 without a row", h.root("PATCH", "/v1/admin/users/%s/status" % o.id, {"status": "active"}).status == 200 and
            len(h.audit("action = 'activate'")) == n)


def delete_me():
    o, m = h.person("dora"), h.person("dirk")
    h.join(o.team, m.uuid)
    gone = o("DELETE", "/v1/me", {"confirmation": "somebody@else.test"})
    r.check("DELETE /v1/me with another address: 400", gone.status == 400, gone)
    gone = o("DELETE", "/v1/me", {"confirmation": o.email.upper()})
    r.check("as only owner with a living member: 409 with the teams", gone.code == "owns_team_with_members" and
            gone.json["error"]["count"] == 1 and gone.json["error"]["teams"][0]["id"] == o.team_id, gone)
    r.check("and nothing changed", o("GET", "/v1/me").status == 200)
    c = h.capsule(o.team, "running", o.uuid)
    h.key(o)
    r.check("the member deletes himself: 204", m("DELETE", "/v1/me", {"confirmation": m.email}).status == 204)
    gone = o("DELETE", "/v1/me", {"confirmation": o.email})
    r.check("with a deleted member: 204 and the job", gone.status == 204 and gone.headers.get("x-job-id"), gone)
    r.check("the token is refused, the login unknown", o("GET", "/v1/me").status == 401 and h.api.login(o.email, PASSWORD).status == 401)
    work()
    team_job = h.sql("SELECT id FROM jobs WHERE kind = 'team.purge' AND team_id = '%s'" % o.team)
    end = h.ended(team_job)
    row = h.rows("SELECT name, purged_at IS NOT NULL, slug <> '' FROM teams WHERE id = '%s'" % o.team)[0]
    r.check("team and capsules are gone, the slug stays", end[0] == "succeeded" and row == ["deleted team", "t", "t"] and
            h.sql("SELECT observed_state FROM capsules WHERE id = '%s'" % c) == "stopped", (end, row))
    r.check("no key is left", h.sql("SELECT count(*) FROM api_keys WHERE team_id = '%s' OR created_by = '%s'" % (o.team, o.uuid)) == "0")
    back = h.root("POST", "/v1/admin/users/%s/restore" % o.id)
    r.check("restored before 15 days: the login works", back.status == 200 and back.json["status"] == "active" and h.enter(o.email), back)
    r.check("the purge is cancelled", h.sql("SELECT state FROM jobs WHERE kind = 'user.purge' AND unique_key = '%s'" % o.id) == "cancelled")
    again = h.root("POST", "/v1/admin/users/%s/restore" % o.id)
    r.check("restored twice: 409", again.code == "invalid_state", again)


def purge():
    order = []
    o = purgeable("pia")
    other = h.person("otto")
    kept = "/bucket/hutch/data/%s/other" % other.team_id
    s3.objects[kept] = b"other"
    s3.watch = lambda method, path: order.append((method, path, h.sql("SELECT count(*) FROM storage_connections WHERE id = '%s'" % o.cn)))
    work()
    r.check("before its day nothing happens", not wait_for(lambda: h.job(o.job)[0] != "queued", 1.5) and s3.objects.get(o.objects[0]))
    due(o)
    end = h.ended(o.job)
    s3.watch = None
    r.check("the purge ends", end[0] == "succeeded", end)
    deletes = [x for x in order if x[0] == "DELETE"]
    r.check("the store saw every DELETE while the credentials were there", sorted(x[1] for x in deletes) == sorted(o.objects) and
            all(x[2] == "1" for x in deletes), order)
    r.check("signed well", s3.bad == 0 and kept in s3.objects, s3.bad)
    r.check("account and credentials are gone", h.sql("SELECT (SELECT count(*) FROM users WHERE id = '%s') + (SELECT count(*) FROM storage_connections)"
                                                      % o.uuid) == "0")
    row = h.audit("action = 'purge' AND resource_type = 'storage_connection'")[-1]
    r.check("storage_connection/purge with providers and counts", '"s3"' in row[3] and '"objects_deleted": 3' in row[3] and '"objects_failed": 0' in row[3], row)
    r.check("its event: cloud.credentials_purged", h.sql("SELECT count(*) FROM events WHERE type = 'cloud.credentials_purged'") == "1")
    r.check("what he made in a team that stays is there, nobody's", h.sql("SELECT owner_id IS NULL FROM capsules WHERE id = '%s'" % o.staying) == "t")
    sent = lambda: any(b"has been erased" in open(f, "rb").read().replace(b"=\r\n", b"") for f in glob.glob(h.dir + "/mail/*.eml"))
    r.check("the last mail is sent, then its address erased", wait_for(sent, 8) and wait_for(
        lambda: h.sql("SELECT count(*) FROM emails WHERE template = 'account_purged' AND state = 'sent' AND to_addr IS NULL") == "1", 5))
    erased("purged", o)
    names = h.sql("SELECT count(*) FROM audit_logs WHERE actor_name = 'deleted-user' AND salt IS NULL AND anonymised_at IS NOT NULL")
    r.check("his rows are kept, as deleted-user's", int(names) >= 3, names)
    r.check("user/purge names nobody", h.audit("resource_type = 'user' AND action = 'purge'")[-1][2] == "")


def store_down():
    o = purgeable("stan")
    s3.fail = lambda method, path: method == "DELETE"
    n = len(s3.seen)
    due(o)
    work()
    end = h.ended(o.job)
    tries = [x for x in s3.seen[n:] if x[0] == "DELETE"]
    s3.fail = None
    r.check("store down: the purge ends all the same, three tries each", end[0] == "partial" and len(tries) == 9, (end, len(tries)))
    row = h.audit("action = 'purge' AND resource_type = 'storage_connection'")[-1]
    items = h.sql("SELECT count(*) FROM job_items WHERE job_id = '%s' AND state = 'failed' AND starts_with(target, 'obj-')" % o.job)
    r.check("failures are counted, in the row and as items", '"objects_failed": 3' in row[3] and '"s3"' in row[3] and items == "3", (row, items))
    r.check("credentials are gone", h.sql("SELECT count(*) FROM storage_connections WHERE id = '%s'" % o.cn) == "0")
    wait_for(lambda: not traces(o)[0], 5)
    erased("store down", o)


def mail_down():
    o = purgeable("mona")
    work()
    wait_for(lambda: h.sql("SELECT count(*) FROM emails WHERE state = 'queued'") == "0", 15)
    wait_for(lambda: h.sql("SELECT count(*) FROM teams WHERE id = '%s' AND purged_at IS NULL" % o.team) == "0", 15)
    h.conf["smtp"] = {"host": "127.0.0.1", "port": 9, "tls": "off"}
    h.write_conf()
    reload()
    due(o)
    r.check("SIGHUP with another mail server: a due purge is claimed", wait_for(lambda: h.job(o.job)[0] != "queued", 15), h.job(o.job))
    end = h.ended(o.job)
    r.check("mail server down: the purge ends", end[0] == "succeeded" and h.sql("SELECT count(*) FROM users WHERE id = '%s'" % o.uuid) == "0", end)
    left = h.everywhere(o.uuid, o.id, o.email, o.name)
    r.check("only the mail that waits knows the address", set(left) <= {"emails"} and left.get("emails") == 1, left)
    log = lambda: any("mail.send" in open(f).read() and "mail server" in open(f).read() for f in glob.glob(h.dir + "/worker*.log"))
    r.check("a warning in the log", wait_for(log, 10))
    del h.conf["smtp"]
    h.write_conf()
    reload()

    def sent():  # called again and again: a try of the old configuration may have been under way
        h.super("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE kind = 'mail.send' AND state = 'queued' AND run_at > now() + interval '2 s'")
        return not traces(o)[0]
    r.check("later it is sent and forgotten", wait_for(sent, 15, 0.3), traces(o))


def anonymiser_fails():
    o = purgeable("anna")
    h.super("ALTER FUNCTION audit_anonymise(uuid, int) RENAME TO audit_anonymise_away")
    due(o)
    work()
    wait_for(lambda: h.job(o.job)[0] == "failed", 15)
    r.check("anonymisation fails: the account's row is still there", h.sql("SELECT count(*) FROM users WHERE id = '%s'" % o.uuid) == "1" and
            h.job(o.job)[0] == "failed", h.job(o.job))
    late = h.root("POST", "/v1/admin/users/%s/restore" % o.id)
    r.check("a purge that began cannot be undone: 409", late.code == "invalid_state", late)
    h.super("ALTER FUNCTION audit_anonymise_away(uuid, int) RENAME TO audit_anonymise")
    h.add_jobs("user.purge_missing", queue="tick")
    r.check("the sweep makes a new one, which ends", wait_for(lambda: h.sql("SELECT count(*) FROM users WHERE id = '%s'" % o.uuid) == "0", 15))
    wait_for(lambda: not traces(o)[0], 8)
    erased("after the failure", o)


def two_purges():
    """Two at once: one winner."""
    before = len(h.audit("resource_type = 'user' AND action = 'purge'"))
    o = purgeable("zoe", 1)
    work()
    wait_for(lambda: h.sql("SELECT count(*) FROM teams WHERE id = '%s' AND purged_at IS NULL" % o.team) == "0", 15)
    answers = []
    ask = lambda: answers.append(h.root("DELETE", "/v1/admin/users/%s?purge=now" % o.id))
    threads = [threading.Thread(target=ask) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    good = [a for a in answers if a.status == 202]
    r.check("purge=now, four times at once: one job", good and len({a.json["job_id"] for a in good}) == 1 and
            all(a.status in (202, 404, 409) for a in answers), answers)
    end = h.ended(o.job)
    r.check("it is purged once", end[0] == "succeeded" and len(h.audit("resource_type = 'user' AND action = 'purge'")) == before + 1, end)


def silent_host():
    o = h.person("silvia")
    slow, fast = h.capsule(o.team, "running"), h.capsule(o.team, "pending")
    agent.silent = True
    work()
    job = h.uuid_of(o("DELETE", "/v1/teams/" + o.team_id).headers["x-job-id"])
    done = lambda: h.sql("SELECT count(*) FROM capsules WHERE id = '%s' AND observed_state = 'stopped'" % fast) == "1" and h.job(job)[8] == "connections"
    r.check("a silent host delays its own capsule only", wait_for(done, 20) and
            h.sql("SELECT observed_state FROM capsules WHERE id = '%s'" % slow) == "stopping", (h.job(job), states(o.team)))
    agent.silent = False
    end = h.ended(job, 40)
    r.check("and no more when it speaks", end[0] == "succeeded" and end[5:8] == ["2", "2", "0"], end)


def missing_jobs():
    o = purgeable("mira", 0)
    work()
    wait_for(lambda: h.sql("SELECT count(*) FROM teams WHERE id = '%s' AND purged_at IS NULL" % o.team) == "0", 15)
    h.super("DELETE FROM jobs WHERE id = '%s'" % o.job)
    h.super("UPDATE users SET purge_after = now() - interval '1 minute' WHERE id = '%s'" % o.uuid)
    h.add_jobs("user.purge_missing", queue="tick")
    r.check("a purge that nobody makes is made by the sweep", wait_for(lambda: h.sql("SELECT count(*) FROM users WHERE id = '%s'" % o.uuid) == "0", 15))


EARLY = (disable_and_back, delete_me, purge, store_down)
LATE = (mail_down, anonymiser_fails, silent_host, missing_jobs, two_purges)
for part in LATE if "late" in sys.argv else EARLY:
    start = time.monotonic()
    part()
    print("# %s: %.1f s" % (part.__name__, time.monotonic() - start), flush=True)
s3.stop()
r.end()
