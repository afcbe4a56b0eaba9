#!/usr/bin/env python3
"""audit.py - the timers of the audit log in a real worker: checkpoints, partitions of the months, verification that tells what it finds once."""
import json
import os
import subprocess

from private import BUILD, PLATFORM, Private, Report, wait_for, wire

TEAM = "00000000-0000-7000-8000-00000000000a"

p = Private(workers={"fast_slots": 0, "mail_slots": 0, "capsule_slots": 0, "purge_slots": 0, "tick_slots": 1, "lease_sec": 5})
r = Report()


def run(kind):
    """One run of a timer's job, beside those of the sweeper."""
    ids = p.add_jobs(kind, 1, queue="tick", priority=1)
    good = p.all_in(ids, "succeeded", 20)
    row = p.rows("SELECT state, coalesce(result::text, ''), coalesce(error_text, '') FROM jobs WHERE id = '%s'" % ids[0])[0]
    return good, row, json.loads(row[1]) if row[1] else None


def told():
    return p.rows("SELECT resource_id, metadata->>'team', metadata->>'seq', metadata->>'reason', scope, status, event, actor_type FROM audit_logs "
                  "WHERE team_id = '%s' AND resource_type = 'audit' AND action = 'verify_failed' ORDER BY seq" % PLATFORM)


def super(text):
    return p.psql("postgres", "hutch", text)


def ctl(*words):
    return subprocess.run([os.path.join(BUILD, "cli/hutchctl"), "-c", p.dir + "/hutch.conf", *words], capture_output=True, text=True)


def months():
    parts = "SELECT count(*) FROM pg_class WHERE relname ~ '^%s_[0-9]{4}_[0-9]{2}$'"
    super("CREATE TABLE api_key_usage_2020_01 PARTITION OF api_key_usage FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')")
    last = p.sql("SELECT max(relname) FROM pg_class WHERE relname ~ '^audit_logs_[0-9]{4}_[0-9]{2}$'")
    super("DROP TABLE " + last)
    good, row, _ = run("month.partitions")
    r.check("month.partitions runs", good, row)
    r.check("… made the month that was missing", p.sql("SELECT to_regclass('%s') IS NOT NULL" % last) == "t")
    r.check("… of both tables four", (p.sql(parts % "audit_logs"), p.sql(parts % "api_key_usage")) == ("4", "4"))
    r.check("… and dropped the old one of key use", p.sql("SELECT to_regclass('api_key_usage_2020_01') IS NULL") == "t")
    good, row, _ = run("month.partitions")
    r.check("… again: the same", good and p.sql(parts % "audit_logs") == "4", row)


def marks():
    n = "SELECT count(*) FROM audit_checkpoints"
    good, row, _ = run("audit.checkpoint")
    r.check("audit.checkpoint runs", good and p.sql(n + " WHERE team_id = '%s'" % TEAM) == "1", row)
    lines = [json.loads(line) for line in open(p.dir + "/checkpoints")]
    ours = [x for x in lines if x["team"] == wire("team-", TEAM)]
    r.check("… and the file has the same", len(ours) == 1 and ours[0]["seq"] == 12 and
            ours[0]["hash"] == p.sql("SELECT encode(hash, 'hex') FROM audit_checkpoints WHERE team_id = '%s'" % TEAM), lines)
    good, row, _ = run("audit.checkpoint")
    r.check("… chains that did not grow get none", good and p.sql(n + " WHERE team_id = '%s'" % TEAM) == "1", row)


def verify():
    good, row, got = run("audit.verify")
    r.check("audit.verify of an honest log finds nothing", good and got["bad"] == 0 and got["rows"] >= 12 and got["checkpoints"] >= 1 and told() == [], row)
    super("SET session_replication_role = replica; UPDATE audit_logs SET action = 'x' WHERE team_id = '%s' AND seq = 5" % TEAM)
    good, row, got = run("audit.verify")
    finding = [wire("team-", TEAM), wire("team-", TEAM), "5", "hash differs", "admin", "error", "audit.broken", "system"]
    r.check("a changed row is in the Platform's log", good and got["bad"] == 1 and told() == [finding], (row, told()))
    event = "SELECT data->>'team_id', data->>'seq' FROM events WHERE type = 'audit.broken'"
    r.check("… and an event", p.rows(event) == [[wire("team-", TEAM), "5"]], p.rows(event))
    good, row, got = run("audit.verify")
    r.check("… once", good and got["bad"] == 1 and told() == [finding] and len(p.rows(event)) == 1, (row, told()))
    super("SET session_replication_role = replica; UPDATE audit_checkpoints SET signature = sha256('x') || sha256('y') WHERE team_id = '%s'" % TEAM)
    good, row, got = run("audit.verify")
    r.check("a checkpoint that was changed is another finding", good and got["bad"] == 2 and len(told()) == 2 and
            told()[1][2:4] == ["12", "its checkpoint is forged"], (row, told()))
    again = ctl("audit", "verify")
    r.check("hutchctl says the same", again.returncode == 1 and "row 5: hash differs" in again.stdout and "row 12: its checkpoint is forged" in again.stdout and
            " 2 chains broken" in again.stdout, again.stdout + again.stderr)


def long_chain():
    """More rows than one piece has; one is changed behind the first piece."""
    # the sweeper's own checkpoints would tell of rows that are cut off here: its turns of the next hour are taken
    p.sql("INSERT INTO timer_slots (name, slot) SELECT 'audit.checkpoint', to_timestamp(floor(extract(epoch FROM now()) / 60) * 60 + n * 60) "
          "FROM generate_series(0, 60) n ON CONFLICT DO NOTHING")
    wait_for(lambda: p.sql("SELECT count(*) FROM jobs WHERE kind = 'audit.checkpoint' AND state IN ('queued','running')") == "0", 30)
    super("SET session_replication_role = replica; DELETE FROM audit_logs; DELETE FROM audit_checkpoints; UPDATE audit_heads SET seq = 0, "
          "hash = decode(repeat('00', 32), 'hex')")
    p.sql("SELECT count(audit_append(gen_random_uuid(), '%s', 'system', NULL, '', NULL, NULL, 'bulk', NULL, 'create', NULL, 'team', 'info', '{}', NULL, NULL, NULL)) "
          "FROM generate_series(1, 5200)" % TEAM)
    good, row, got = run("audit.verify")
    r.check("a chain of several pieces verifies, each row once", good and got["bad"] == 0 and got["rows"] == 5200, row)
    super("SET session_replication_role = replica; UPDATE audit_logs SET status = 'error' WHERE team_id = '%s' AND seq = 5100" % TEAM)
    good, row, got = run("audit.verify")
    r.check("… and a row of the second piece is found", good and got["bad"] == 1 and told()[-1][2] == "5100", (row, told()))
    super("SET session_replication_role = replica; DELETE FROM audit_logs WHERE team_id = '%s' AND seq > 4000" % TEAM)
    good, row, got = run("audit.verify")
    r.check("… and a tail that was cut before it", good and got["bad"] == 1 and told()[-1][2] in ("4001", "5000"), (row, told()))


p.conf.setdefault("audit", {})["checkpoint_file"] = p.dir + "/checkpoints"
p.start()
p.conf["db"]["owner_url"] = "host=%s dbname=hutch user=hutch_owner" % p.dir
p.write_conf()
super("INSERT INTO teams (id, name, slug) VALUES ('%s', 'A', 'aaaaaa-aaaaaa'); INSERT INTO audit_heads (team_id, at) VALUES ('%s', now()) ON CONFLICT DO NOTHING" % (TEAM, TEAM))
p.sql("SELECT count(audit_append(gen_random_uuid(), '%s', 'system', NULL, '', NULL, NULL, 'thing', 'r' || n, 'create', NULL, 'team', 'info', '{}', NULL, NULL, NULL)) "
      "FROM generate_series(1, 12) n" % TEAM)
worker = p.start_worker()
wait_for(lambda: p.children(worker, "tick"), 10)
months()
marks()
verify()
long_chain()
r.check("the worker ends in peace", p.stop_worker(worker) == 0)
r.end()
