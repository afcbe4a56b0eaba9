#!/usr/bin/env python3
"""deletion_kill.py - kill -9 before and behind every step of team.purge and user.purge: each converges, nobody else is touched."""
import sys

from deletion_house import due, h, purgeable, r, s3, states, traces, work
from people import wait_for, wire

USER_STEPS = ("due", "objects", "connections", "anonymise", "finish")
TEAM_STEPS = ("capsules", "images", "objects", "hosts", "connections", "finish")


def converges(kind, steps, make, check):
    """kill -9 before and behind every step."""
    for point in [s + end for s in steps for end in ("", ".done")]:
        work(False)
        o, job = make(point.replace(".", ""))
        died = h.crashed_at("%s.%s" % (kind, point), job)
        h.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE id = '%s' AND state = 'queued'" % job)
        work()
        end = h.ended(job)
        r.check("%s, killed at %s: converges" % (kind, point), died and end[0] == "succeeded" and check(o, job), (died, end))


def killed():
    other = h.person("ole")
    kept = "/bucket/hutch/data/%s/other" % other.team_id
    s3.objects[kept] = b"other"

    def account(name):
        o = purgeable("u" + name, 1)
        work()
        wait_for(lambda: h.sql("SELECT count(*) FROM teams WHERE id = '%s' AND purged_at IS NULL" % o.team) == "0", 15)
        wait_for(lambda: h.sql("SELECT count(*) FROM emails WHERE state = 'queued'") == "0", 10)
        work(False)
        due(o)
        return o, o.job

    def team(name):
        o = h.person("t" + name)
        for state in ("running", "paused", "pending"):
            h.capsule(o.team, state)
        o.cn = h.uuid_of(o("POST", "/v1/storage/connections", s3.connection(owner="team")).json["id"])
        i = h.super("INSERT INTO objects (id, team_id, connection_id, name) VALUES (gen_random_uuid(), '%s', '%s', 'x') RETURNING id" % (o.team, o.cn))
        s3.objects["/bucket/hutch/data/%s/%s" % (o.team_id, wire("obj-", i))] = b"x"
        return o, h.uuid_of(o("DELETE", "/v1/teams/" + o.team_id).headers["x-job-id"])

    def account_gone(o, _):
        wait_for(lambda: not traces(o)[0], 10)
        left = traces(o)
        if left[0]:
            print("#", left)
        return not left[0] and o.objects[0] not in s3.objects

    def team_gone(o, job):
        rows = h.audit("team_id = '%s' AND action = 'destroy'" % o.team)
        purges = h.audit("resource_type = 'team' AND action = 'purge' AND resource_id = '%s'" % o.team_id)
        return states(o.team) == {"stopped": "3"} and len(rows) == 3 and len(purges) == 1 and not [k for k in s3.objects if o.team_id in k] and \
            h.sql("SELECT count(*) FROM storage_connections WHERE id = '%s'" % o.cn) == "0"

    if "user" in sys.argv:
        converges("user.purge", USER_STEPS, account, account_gone)
    else:
        converges("team.purge", TEAM_STEPS, team, team_gone)
    r.check("another team's objects are alive", kept in s3.objects)


killed()
s3.stop()
r.end()
