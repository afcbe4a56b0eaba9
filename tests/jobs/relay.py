#!/usr/bin/env python3
"""relay.py - events get dense numbers per team and reach the stream, whoever is killed meanwhile."""
import json
import os
import random
import signal
import subprocess
import threading
import time

from private import Private, Report, wait_for, wire

TEAMS = ["00000000-0000-7000-8000-0000000001%02x" % n for n in range(20)]
ROUNDS, PER_ROUND = 30, 100

p = Private(workers={"fast_slots": 0, "mail_slots": 0, "capsule_slots": 0, "tick_slots": 0})
r = Report()


def write_events(n, first, ring=True):
    """n events of many teams in one transaction; data says their order within the team."""
    p.sql("INSERT INTO events (id, team_id, type, category, actor_type, actor_id, actor_name, resource_type, resource_id, data) "
          "SELECT gen_random_uuid(), ('{%s}'::uuid[])[1 + g %% %d], 'capsule.updated', 'configuration', 'user', 'usr-x', 'Ada', 'sandbox', 'cl-x', "
          "jsonb_build_object('changed', jsonb_build_object('n', g)) FROM generate_series(%d, %d) g"
          % (",".join(TEAMS), len(TEAMS), first, first + n - 1))
    if ring:
        p.redis_cli("LPUSH", "hutch:relay", 1)


def stream():
    """Everything in hutch:ev: (gpos, envelope)."""
    out, lines = [], p.redis_cli("XRANGE", "hutch:ev", "-", "+").split("\n")
    i = 0
    while i + 4 < len(lines):
        out.append((int(lines[i + 2]), json.loads(lines[i + 4])))
        i += 5
    return out


def first_look(w):
    start = time.monotonic()
    write_events(1, 0)
    wait_for(stream, 5, 0.01)
    took = time.monotonic() - start
    r.check("an event reaches the stream", len(stream()) == 1 and took < 20, took)
    print("# from before the INSERT to the stream: %.0f ms" % (took * 1000))
    raw = p.redis_cli("XRANGE", "hutch:ev", "-", "+").split("\n")[4]
    row = p.rows("SELECT id, to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS'), seq, team_id FROM events")[0]
    want = ('{"event":"capsule.updated","timestamp":"%s' % row[1])
    r.check("the envelope begins as others rely on", raw.startswith(want), raw)
    rest = '"team_id":"%s","actor":{"type":"user","id":"usr-x","name":"Ada"},"resource":{"id":"cl-x","type":"sandbox"},"id":"%s",' \
           '"seq":1,"v":1,"category":"configuration","data":{"changed":{"n":0}}}' % (wire("team-", row[3]), wire("evt-", row[0]))
    r.check("and ends compact, keys in order", raw.endswith(rest), raw)


def killed_relays(w):
    """Two parents, so two relays; each half second one of them is killed while events come."""
    w2 = p.start_worker()
    stop = threading.Event()

    def killer():
        while not stop.wait(0.4):
            pids = p.children(w, "relay") + p.children(w2, "relay")
            if pids:
                try:
                    os.kill(random.choice(pids), signal.SIGKILL)
                except ProcessLookupError:
                    pass

    thread = threading.Thread(target=killer)
    thread.start()
    n = 1
    for _ in range(ROUNDS):
        write_events(PER_ROUND, n)
        n += PER_ROUND
        time.sleep(0.1)
    time.sleep(1)
    stop.set()
    thread.join()
    r.check("every event is numbered", wait_for(lambda: p.sql("SELECT count(*) FROM events WHERE seq IS NULL") == "0", 20),
            p.sql("SELECT count(*) FROM events WHERE seq IS NULL"))
    bad = p.sql("SELECT count(*) FROM (SELECT count(*) n, max(seq) m, count(DISTINCT seq) d, min(seq) f FROM events GROUP BY team_id) t "
                "WHERE n <> m OR n <> d OR f <> 1")
    r.check("seq is 1 to n in each of %d teams" % len(TEAMS), bad == "0", bad)
    bad = p.sql("SELECT count(*) FROM events a JOIN events b USING (team_id) WHERE a.seq + 1 = b.seq AND a.pos > b.pos")
    r.check("in the order of their writing", bad == "0", bad)
    heads = p.sql("SELECT count(*) FROM event_heads h JOIN (SELECT team_id, max(seq) m FROM events GROUP BY 1) e USING (team_id) WHERE h.seq <> e.m")
    top = p.rows("SELECT (SELECT gpos FROM event_relay), max(gpos), count(*), count(DISTINCT gpos) FROM events")[0]
    r.check("heads agree, gpos is dense", heads == "0" and len(set(top)) == 1, (heads, top))

    def complete():
        return {g for g, _ in stream()} == set(range(1, n + 1))
    r.check("the stream has all of them", wait_for(complete, 10, 0.5), (len({g for g, _ in stream()}), n))
    seen, order = set(), []
    for g, e in stream():
        if g not in seen:
            seen.add(g)
            order.append(g)
    # repeats of a starting relay come behind; what is new is in order
    r.check("what is new comes in order", order == sorted(order), order[:20])
    p.stop_worker(w2)


def without_redis(w):
    p.stop_redis()
    before = int(p.sql("SELECT gpos FROM event_relay"))
    write_events(50, 100000, ring=False)
    r.check("without Redis events are numbered", wait_for(
        lambda: int(p.sql("SELECT gpos FROM event_relay")) == before + 50, 6), p.sql("SELECT gpos FROM event_relay"))
    p.start_redis()
    write_events(10, 200000)
    r.check("Redis back: the stream goes on", wait_for(lambda: len({g for g, _ in stream()} & set(
        range(before + 51, before + 61))) == 10, 10), len(stream()))


def only_known():
    """A row that was rolled back is never seen; the API's role can write, and read its own team only."""
    p.sql("BEGIN; INSERT INTO events (id, team_id, type, category, actor_type) VALUES (gen_random_uuid(), '%s', 'capsule.updated', "
          "'configuration', 'system'); ROLLBACK" % TEAMS[0])
    p.sql("INSERT INTO events (id, team_id, type, category, actor_type) VALUES (gen_random_uuid(), '%s', 'user.signed_up', 'admin', 'system')"
          % TEAMS[1], user="hutch_app")
    own = p.sql("SET hutch.team = '%s'; SELECT count(*) FILTER (WHERE team_id <> '%s'), count(*) > 0 FROM events" % (TEAMS[0], TEAMS[0]),
                user="hutch_app")
    r.check("the API's role reads its team's events only", own == "0|t", own)
    try:
        p.sql("UPDATE events SET seq = 1, gpos = 1", user="hutch_app")
        r.check("and changes none", False, "it could")
    except RuntimeError as e:
        r.check("and changes none", "permission denied" in str(e), e)


p.start()
worker = p.start_worker()
first_look(worker)
killed_relays(worker)
without_redis(worker)
only_known()
code = p.stop_worker(worker)
r.check("SIGTERM ends it with 0", code == 0, code)
r.end()
