"""deletion_house.py - a house with a store, a host and people to be purged: what the tests of deletion share."""
from fakeagent import Agent
from people import House, wait_for, wire
from private import Report
from s3 import S3

import os
import signal
import tempfile

certs = tempfile.mkdtemp(prefix="hutch-s3-", dir="/tmp")
s3 = S3(certs)
h = House(storage={"private_networks": "127.0.0.0/8", "ca_file": s3.ca}, workers={"capsule_slots": 4}).open()
agent = Agent(h.dir)
h.host(agent)
r = Report()
worker = None


def work(on=True):
    global worker
    if on and not worker:
        worker = h.start_worker()
    elif not on and worker:
        children = h.children(worker, "")
        if h.stop_worker(worker, 4) is None:  # a build with sanitizers under load takes its time
            for pid in children:
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
        worker = None


def reload():
    h.reload(worker, "mail")


def states(team):
    return dict(h.rows("SELECT observed_state, count(*) FROM capsules WHERE team_id = '%s' GROUP BY 1" % team))


def purgeable(name, objects=3):
    """Somebody with everything that can hang on a person, deleted, and the job of the purge."""
    o = h.person(name)
    cn = o("POST", "/v1/storage/connections", s3.connection())
    assert cn.status == 201, cn
    o.cn, o.objects = h.uuid_of(cn.json["id"]), []
    for _ in range(objects):
        i = h.super("INSERT INTO objects (id, team_id, owner_id, connection_id, name) VALUES (gen_random_uuid(), '%s', '%s', '%s', 'report') RETURNING id"
                    % (o.team, o.uuid, o.cn))
        path = "/bucket/hutch/data/%s/%s" % (o.team_id, wire("obj-", i))
        s3.objects[path] = b"canary"
        o.objects.append(path)
    friends = h.team("friends")
    h.join(friends, h.root.uuid, "owner")
    h.join(friends, o.uuid)
    h.super("INSERT INTO team_invitations (id, team_id, email, token_hash, role, invited_by, expires_at) VALUES (gen_random_uuid(), '%s', '%s', "
            "sha256('%s'), 'member', '%s', now() + interval '1 day')" % (friends, o.email, o.email, h.root.uuid))
    h.key(o)
    o.staying = h.capsule(friends, "stopped", o.uuid)
    o("PATCH", "/v1/me", {"name": name.capitalize() + " Canary"})
    h.root("PATCH", "/v1/admin/users/" + o.id, {"must_change_password": True})
    h.root("PATCH", "/v1/admin/users/" + o.id, {"must_change_password": False})
    a = o("DELETE", "/v1/me", {"confirmation": o.email})
    assert a.status == 204, a
    o.job = h.uuid_of(a.headers["x-job-id"])
    o.name = name.capitalize() + " Canary"
    return o


def due(o):
    """The days of grace are over."""
    h.super("UPDATE users SET purge_after = now() - interval '1 minute' WHERE id = '%s'" % o.uuid)
    h.sql("UPDATE jobs SET run_at = now() - interval '1 minute', announced_at = NULL WHERE id = '%s'" % o.job)


def traces(o):
    left = h.everywhere(o.uuid, o.id, o.email, o.name)
    redis = [line[:300] for line in h.redis_all() if any(c in line for c in (o.uuid, o.id, o.email, o.name))]
    return left, redis


def erased(name, o):
    left, redis = traces(o)
    r.check(name + ": nobody finds him in any table or any value of Redis", not left and not redis, (left, redis))
    # ids may stay in logs for their 30 days, names and addresses were never there; files of mail.dir are the mails themselves
    text = h.logs()
    r.check(name + ": no log has his name or address", o.email not in text and o.name not in text,
            [line for line in text.split("\n") if o.email in line or o.name in line][:3])
    verify = h.chains_verify()
    r.check(name + ": all chains verify", verify.returncode == 0, verify.stdout + verify.stderr)
