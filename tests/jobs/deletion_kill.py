#!/usr/bin/env python3
"""deletion_kill.py - kill -9 before and behind every step of team.purge and user.purge: each converges, nobody else is touched.

One job dies at every step in turn, each time in a fresh worker; what the last one leaves must be what a job leaves that nobody killed.
"""
from deletion_house import agent, due, erased, h, purgeable, r, s3, states, work
from people import wait_for, wire

USER_STEPS = ("due", "objects", "connections", "anonymise", "finish")
TEAM_STEPS = ("capsules", "images", "objects", "hosts", "connections", "finish")


def dies_everywhere(kind, steps, job):
    """kill -9 before and behind every step, then a worker that lives."""
    work(False)
    for point in [s + end for s in steps for end in ("", ".done")]:
        h.sql("UPDATE jobs SET run_at = now(), announced_at = NULL, crashes = 0 WHERE id = '%s' AND state = 'queued'" % job)
        died = h.crashed_at("%s.%s" % (kind, point), job)
        r.check("%s dies at %s" % (kind, point), died and wait_for(lambda: h.job(job)[0] == "queued", 8), h.job(job))
    work()
    end = h.ended(job)
    r.check("%s, killed at every step: converges" % kind, end[0] == "succeeded", end)
    return end


def accounts():
    o = purgeable("ulla", 2)
    work()
    wait_for(lambda: h.sql("SELECT count(*) FROM teams WHERE id = '%s' AND purged_at IS NULL" % o.team) == "0", 15)
    wait_for(lambda: h.sql("SELECT count(*) FROM emails WHERE state = 'queued'") == "0", 10)
    due(o)
    dies_everywhere("user.purge", USER_STEPS, o.job)
    r.check("the objects are gone", not [x for x in o.objects if x in s3.objects])
    r.check("one row of the purge, one mail", len(h.audit("resource_type = 'user' AND action = 'purge'")) == 1 and
            h.sql("SELECT count(*) FROM emails WHERE template = 'account_purged'") == "1")
    r.check("the last mail is sent, its address forgotten",
            wait_for(lambda: h.sql("SELECT count(*) FROM emails WHERE to_addr IS NOT NULL AND template = 'account_purged'") == "0", 15))
    erased("killed at every step", o)


def own_host(o):
    """A host of the team's own, with a capsule on it, a sleeping capsule's image, a snapshot, metrics."""
    host = h.super("INSERT INTO hosts (id, type, team_id, name, address, status, last_heartbeat_at) VALUES (gen_random_uuid(), 'byoc', '%s', 'own', 'unix:%s', "
                   "'online', now()) RETURNING id" % (o.team, agent.path))
    c = h.capsule(o.team, "running")
    h.super("UPDATE capsules SET host_id = '%s' WHERE id = '%s'" % (host, c))
    h.super("INSERT INTO artifacts (id, kind) SELECT sha256(n::text::bytea), 'disk' FROM generate_series(1, 2) AS n")
    h.super("INSERT INTO capsule_images (capsule_id, epoch, team_id, disk_artifact) VALUES ('%s', 1, '%s', sha256('1'))" % (c, o.team))
    h.super("INSERT INTO snapshots (id, team_id, capsule_id, name, memory, state, disk_artifact, spec, ready_at) VALUES "
            "(gen_random_uuid(), '%s', '%s', 's', false, 'ready', sha256('2'), '{}', now())" % (o.team, c))
    h.super("INSERT INTO capsule_metrics (team_id, capsule_id, tier, from_at, step_ms, cpu, mem, mem_guest, disk, rx, tx, rd, wr) VALUES "
            "('%s', '%s', '10m', now(), 1000, '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}', '{1}')" % (o.team, c))
    h.super("INSERT INTO team_metric_snapshots VALUES ('%s', now(), 1, 1, 1)" % o.team)
    return host


def teams():
    o = h.person("tom")
    for state in ("running", "paused", "pending"):
        h.capsule(o.team, state)
    o.cn = h.uuid_of(o("POST", "/v1/storage/connections", s3.connection(owner="team")).json["id"])
    i = h.super("INSERT INTO objects (id, team_id, connection_id, name) VALUES (gen_random_uuid(), '%s', '%s', 'x') RETURNING id" % (o.team, o.cn))
    s3.objects["/bucket/hutch/data/%s/%s" % (o.team_id, wire("obj-", i))] = b"x"
    host = own_host(o)
    work(False)
    job = h.uuid_of(o("DELETE", "/v1/teams/" + o.team_id).headers["x-job-id"])
    dies_everywhere("team.purge", TEAM_STEPS, job)
    rows = h.audit("team_id = '%s' AND action = 'destroy'" % o.team)
    purges = h.audit("resource_type = 'team' AND action = 'purge' AND resource_id = '%s'" % o.team_id)
    r.check("four capsules are stopped, with a row each; one row of the purge", states(o.team) == {"stopped": "4"} and len(rows) == 4 and
            len(purges) == 1, (states(o.team), rows, purges))
    r.check("no object and no credential is left", not [k for k in s3.objects if o.team_id in k] and
            h.sql("SELECT count(*) FROM storage_connections WHERE id = '%s'" % o.cn) == "0")
    r.check("its host is deleted once", len(h.audit("resource_type = 'host' AND action = 'delete'")) == 1 and
            h.sql("SELECT deleted_at IS NOT NULL AND NOT schedulable FROM hosts WHERE id = '%s'" % host) == "t")
    gone = lambda: h.sql("SELECT decommissioned_at IS NOT NULL FROM hosts WHERE id = '%s'" % host) == "t"
    r.check("and got the order to end everything", wait_for(gone, 15))
    left = {t: h.sql("SELECT count(*) FROM %s WHERE team_id = '%s'" % (t, o.team)) for t in
            ("capsule_metrics", "team_metric_snapshots", "snapshots", "capsule_images", "users_teams", "api_keys", "quotas")}
    r.check("no metrics, snapshots, images, members, keys are left", set(left.values()) == {"0"}, left)
    name = "Tom Canary's Team"  # a person's name: the audit log keeps it until that person is purged, too
    wait_for(lambda: h.sql("SELECT count(*) FROM emails WHERE state = 'queued'") == "0", 10)
    tables, redis = h.everywhere(name), [line[:300] for line in h.redis_all() if name in line]
    r.check("its name is in the audit log alone", set(tables) <= {"audit_logs"} and not redis and name not in h.logs(), (tables, redis))


other = h.person("ole")
kept = "/bucket/hutch/data/%s/other" % other.team_id
s3.objects[kept] = b"other"
accounts()
teams()
r.check("another team's objects are alive", kept in s3.objects)
s3.stop()
r.end()
