#!/usr/bin/env python3
"""jobs.py - jobs end once and only once: without Redis, under kill, with poison among them."""
import os
import random
import signal
import time

from private import PLATFORM, Private, Report, wait_for

TEAM_A = "00000000-0000-7000-8000-00000000000a"
TEAM_B = "00000000-0000-7000-8000-00000000000b"

p = Private(workers={"fast_slots": 4, "mail_slots": 0, "capsule_slots": 0, "purge_slots": 0, "host_slots": 0, "tick_slots": 1, "lease_sec": 5})
r = Report()


def effects(ids):
    """How many rows the jobs left behind, and how many jobs left one."""
    return p.rows("SELECT count(*), count(DISTINCT job_id) FROM job_items WHERE job_id = ANY('{%s}')" % ",".join(ids))[0]


UNSERVED = {"hutch:q:host", "hutch:q:capsule", "hutch:q:purge", "hutch:q:mail"}  # nobody takes from these here


def basics(w):
    ids = p.add_jobs("test.effect", 100)
    start = time.monotonic()
    good = p.all_in(ids, "succeeded", 20)
    r.check("100 jobs succeed", good, p.states(ids))
    r.check("each has one effect", effects(ids) == ["100", "100"], effects(ids))
    print("# 100 jobs in %.2f s" % (time.monotonic() - start))
    slots = lambda: p.redis_cli("ZCARD", "hutch:workers")
    r.check("Redis knows the slots, and no list keeps an id", wait_for(lambda: slots() == "5") and wait_for(
        lambda: set(p.redis_cli("KEYS", "hutch:[qw]:*").split()) <= UNSERVED, 3), (slots(), p.redis_cli("KEYS", "hutch:*")))
    row = p.rows("SELECT result, attempts, epoch, worker IS NULL, lease_until IS NULL FROM jobs WHERE id = '%s'" % ids[0])[0]
    r.check("result, attempts, epoch are written", row == ['{"done": true}', "1", "1", "t", "t"], row)

    for n in range(5):  # a machine that stands still may see its end before the second is asked for
        first = p.add_jobs("test.slow", 1, '{"steps": 1, "ms": 2000}', unique="u%d" % n)
        second = p.add_jobs("test.slow", 1, '{"steps": 1, "ms": 2000}', unique="u%d" % n)
        if first == second or p.states(first) != {"succeeded": 1}:
            break
    r.check("the same unique key is the same job", first == second, (first, second))
    p.all_in(first, "succeeded", 10)
    third = p.add_jobs("test.slow", 1, '{"steps": 1}', unique="u%d" % n)
    r.check("after its end it is a new one", third != first)

    ids = p.add_jobs("test.slow", 4, '{"steps": 1, "ms": 600}', lock="capsule-1")
    most = 0
    while p.states(ids).get("succeeded", 0) < 4 and most < 2:
        most = max(most, p.states(ids).get("running", 0))
    r.check("one job at a time per lock", most == 1, most)

    ids = p.add_jobs("test.effect", 1, delay=6)
    r.check("a delayed job runs when it is due", p.all_in(ids, "succeeded", 10), p.states(ids))
    row = p.rows("SELECT run_at > created_at + interval '5 s', started_at >= run_at FROM jobs WHERE id = '%s'" % ids[0])[0]
    r.check("and not before", row == ["t", "t"], row)
    ids = p.add_jobs("test.effect", 1, '{"ms": "x"}')
    r.check("bad args fail at once", p.all_in(ids, "failed", 5), p.states(ids))
    ids = p.add_jobs("no.such", 1)
    r.check("an unknown kind fails", p.all_in(ids, "failed", 5), p.states(ids))


def repeats():
    def one(args):
        return p.add_jobs("test.fail", 1, args)[0]

    def row(job):
        return p.rows("SELECT state, attempts, waits, error_code, extract(epoch FROM run_at - started_at) FROM jobs WHERE id = '%s'" % job)[0]

    def first(job):
        """The row as its first try left it: the next one may have begun before anybody looks."""
        return p.rows("SELECT state, attempts, waits, error_code, pause FROM tried WHERE id = '%s'" % job)[0]

    p.psql("postgres", "hutch", "CREATE TABLE tried (id uuid PRIMARY KEY, state text, attempts int, waits int, error_code text, pause numeric); "
           "GRANT SELECT ON tried TO hutch_work; "
           "CREATE FUNCTION tried() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO public.tried VALUES (NEW.id, "
           "NEW.state, NEW.attempts, NEW.waits, NEW.error_code, extract(epoch FROM NEW.run_at - now())) ON CONFLICT DO NOTHING; "
           "RETURN NULL; END $$; "
           "CREATE TRIGGER tried AFTER UPDATE ON jobs FOR EACH ROW WHEN (NEW.error_code IS NOT NULL) EXECUTE FUNCTION tried()")
    transient, busy, told = one('{"error":"AGENT"}'), one('{"error":"CONFLICT"}'), one('{"error":"THROTTLED","retry_after":60}')
    final, stopped = one('{"error":"NOT_FOUND"}'), one('{"error":"CANCELLED"}')
    wait_for(lambda: all(row(j)[3] for j in (transient, busy, told, final, stopped)), 10)
    t = first(transient)
    r.check("transient: again in 4 to 5 s, one attempt", t[0] == "queued" and t[1] == "1" and 4 <= float(t[4]) < 15, t)
    t = first(busy)
    r.check("busy: again in 2 s, no attempt", t[0] == "queued" and t[1] == "0" and t[2] == "1" and 1.6 <= float(t[4]) < 12, t)
    t = first(told)
    r.check("throttled: as told", t[0] == "queued" and 60 <= float(t[4]) < 80, t)
    r.check("permanent: failed", row(final)[:4] == ["failed", "1", "0", "not_found"], row(final))
    r.check("cancelled", row(stopped)[0] == "cancelled", row(stopped))

    def dead():
        p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE id = '%s' AND state = 'queued'" % transient)
        return row(transient)[0] not in ("queued", "running")
    wait_for(dead, 20, 0.3)
    r.check("three tries, then the dead letter", row(transient)[:2] == ["failed", "3"], row(transient))
    n = p.sql("SELECT string_agg(type, ' ' ORDER BY pos) FROM events WHERE resource_id LIKE 'job-%%' AND data->>'kind' = 'test.fail'"
              " AND type = 'job.failed'")
    r.check("each failure is one event", n == "job.failed job.failed", n)
    late = p.add_jobs("test.fail", 1, '{"error":"AGENT"}')
    wait_for(lambda: row(late[0])[3], 5)
    p.sql("UPDATE jobs SET deadline_at = now() - interval '1 second' WHERE id = '%s'" % late[0])
    r.check("past its deadline: failed", p.all_in(late, "failed", 5) and row(late[0])[3] == "deadline", row(late[0]))


def poison(w):
    bad = p.add_jobs("test.crash", 1)[0]
    good = p.add_jobs("test.effect", 40)
    for n in (1, 2):
        wait_for(lambda: p.sql("SELECT crashes FROM jobs WHERE id = '%s'" % bad) == str(n), 8)
        p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE id = '%s'" % bad)
    r.check("a job that crashes thrice is poison", wait_for(lambda: p.rows(
        "SELECT state, error_code, crashes FROM jobs WHERE id = '%s'" % bad) == [["failed", "poison", "3"]], 10),
        p.rows("SELECT state, error_code, crashes FROM jobs WHERE id = '%s'" % bad))
    r.check("others do not suffer", p.all_in(good, "succeeded", 10), p.states(good))


def redis_is_lost():
    ids = p.add_jobs("test.effect", 60, '{"ms": 5}')
    p.redis_cli("FLUSHALL")
    r.check("FLUSHALL loses nothing", p.all_in(ids, "succeeded", 20), p.states(ids))
    p.stop_redis()
    ids = p.add_jobs("test.effect", 40)
    start = time.monotonic()
    good = p.all_in(ids, "succeeded", 15)
    r.check("Redis away: PostgreSQL serves", good, p.states(ids))
    print("# without Redis: 40 jobs in %.2f s" % (time.monotonic() - start))
    p.start_redis()
    ids = p.add_jobs("test.effect", 20)
    r.check("Redis back", p.all_in(ids, "succeeded", 15) and effects(ids) == ["20", "20"], p.states(ids))


def fairness():
    many = p.add_jobs("test.slow", 300, '{"steps": 1, "ms": 100}', team=TEAM_A, ring=False)
    one = p.add_jobs("test.effect", 1, team=TEAM_B, ring=False)
    p.sql("UPDATE jobs SET announced_at = NULL WHERE state = 'queued'")
    good = p.all_in(one, "succeeded", 10)
    before = int(p.sql("SELECT count(*) FROM jobs m, jobs o WHERE m.id = ANY('{%s}') AND o.id = '%s' AND m.started_at < o.started_at"
                       % (",".join(many), one[0])))
    r.check("a team of one is not behind a team of 300", good and before < 200, before)
    most = max(int(p.sql("SELECT count(*) FROM jobs WHERE state = 'running' AND team_id = '%s'" % TEAM_A)) for _ in range(20))
    r.check("no more than 4 of a team at once", most <= 4, most)
    p.sql("INSERT INTO queues VALUES ('fast', true) ON CONFLICT (name) DO UPDATE SET paused = true")
    time.sleep(1)
    wait_for(lambda: "running" not in p.states(many))
    before = p.states(many).get("succeeded", 0)
    time.sleep(1)
    r.check("a paused queue rests", p.states(many).get("succeeded", 0) == before, p.states(many))
    p.sql("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE state = 'queued' AND queue = 'fast'")
    p.sql("UPDATE queues SET paused = false")


def order():
    """What is urgent overtakes; a list never gets long."""
    many = p.add_jobs("test.slow", 200, '{"steps": 1, "ms": 100}')
    urgent = p.add_jobs("test.effect", 1, priority=5)
    p.all_in(urgent, "succeeded", 5)
    before = int(p.sql("SELECT count(*) FROM jobs m, jobs o WHERE m.id = ANY('{%s}') AND o.id = '%s' AND m.started_at BETWEEN o.created_at "
                       "AND o.started_at" % (",".join(many), urgent[0])))
    r.check("an urgent job overtakes", before < 100 and p.states(urgent) == {"succeeded": 1}, before)
    p.all_in(many, "succeeded", 15)
    # nobody serves the queue capsule here
    p.add_jobs("test.effect", 3000, queue="capsule", ring=False)
    p.sql("UPDATE jobs SET announced_at = NULL WHERE queue = 'capsule'")
    wait_for(lambda: int(p.redis_cli("LLEN", "hutch:q:capsule")) >= 200)
    time.sleep(3)
    n = int(p.redis_cli("LLEN", "hutch:q:capsule"))
    r.check("of 3000 due jobs some hundred are in the list", 200 <= n <= 1000, n)
    p.sql("DELETE FROM jobs WHERE queue = 'capsule'")
    p.redis_cli("DEL", "hutch:q:capsule")


def claimed():
    """The operations pool's way: a job inserted as running, ended or handed back by who inserted it."""
    jobs = {e: p.add_jobs("test.claim", 1, '{"error":"%s"}' % e)[0] for e in ("", "NOT_FOUND", "AGENT", "HAND_BACK")}


    def ready():  # what is repeated in some seconds waits until it was looked at
        p.sql("UPDATE jobs SET run_at = now() + interval '1 hour' WHERE kind = 'test.effect' AND unique_key LIKE 'job-%' AND error_code = 'agent_error' "
              "AND state = 'queued'")
        return p.states(jobs.values()) == {"succeeded": 4} and p.sql(
            "SELECT count(*) FROM jobs WHERE kind = 'test.effect' AND unique_key LIKE 'job-%' AND epoch = 2 AND state = 'succeeded'") == "1"
    wait_for(ready, 10)
    rows = p.rows("SELECT state, attempts, epoch, coalesce(error_code, ''), coalesce(result->>'by', '') FROM jobs WHERE kind = 'test.effect' "
                  "AND unique_key LIKE 'job-%' ORDER BY 1, 3")
    want = [["failed", "1", "1", "not_found", "pool"], ["queued", "1", "1", "agent_error", "pool"], ["succeeded", "1", "1", "", "pool"],
            ["succeeded", "1", "2", "", ""]]
    r.check("claimed jobs: done, failed, repeated, handed back", [x[:4] for x in rows] == [x[:4] for x in want], rows)


crash = []  # when PostgreSQL was away


def postgres_restarts():
    ids = p.add_jobs("test.slow", 40, '{"steps": 3, "ms": 30}')
    time.sleep(0.5)
    crash.append(p.sql("SELECT now()"))
    p.restart_postgres()
    crash.append(p.sql("SELECT now()"))

    def settle():
        p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE state = 'queued' AND run_at > now() AND id = ANY('{%s}')" % ",".join(ids))
        return p.states(ids) == {"succeeded": 40}
    r.check("PostgreSQL crashes under jobs: all end", wait_for(settle, 30, 0.5), p.states(ids))
    r.check("and each step is there once", effects(ids) == ["120", "40"], effects(ids))


def kills():
    """Children and parents die at random while jobs run; each job ends, with one effect."""
    ids = p.add_jobs("test.effect", 300, '{"ms": 10}')
    steps = p.add_jobs("test.slow", 10, '{"steps": 8, "ms": 50}')
    parents = [p.start_worker(), p.start_worker()]
    end = time.monotonic() + 4
    while time.monotonic() < end:
        time.sleep(0.4)
        pids = [c for w in parents for c in p.children(w, "fast")]
        if pids:
            try:
                os.kill(random.choice(pids), signal.SIGKILL)
            except ProcessLookupError:
                pass
    parents[0].kill()
    parents[0].wait()
    r.check("a parent is killed, another works on", parents[1].poll() is None)

    def settle():
        # what would wait for a back-off of 10 to 90 s is called now; a third crash is told apart
        p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL, crashes = least(crashes, 1) WHERE state = 'queued' AND run_at > now() "
              "AND id = ANY('{%s}')" % ",".join(ids + steps))
        return p.states(ids + steps).get("succeeded", 0) == 310
    r.check("every job ends", wait_for(settle, 30, 0.5), p.states(ids + steps))
    r.check("each effect is there once", effects(ids) == ["300", "300"] and effects(steps) == ["80", "10"],
            (effects(ids), effects(steps)))
    mixed = p.sql("SELECT count(*) FROM job_items a JOIN job_items b USING (job_id) WHERE a.n < b.n AND a.target::int > b.target::int")
    r.check("no effect of an old epoch after a new one", mixed == "0", mixed)
    return parents[1]


def frozen(w):
    """A parent and its child stop for longer than the lease: another does the job, the old one does nothing more."""
    job = p.add_jobs("test.slow", 1, '{"steps": 6, "ms": 1000}')
    wait_for(lambda: effects(job)[0] != "0", 10)
    stopped = [w.pid] + p.children(w, "fast")

    def hold():
        """Not in the middle of a transaction: it would hold the job's row."""
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        try:  # the lease is 5 s: let it end now
            p.sql("SET lock_timeout = '2s'; UPDATE jobs SET lease_until = now() - interval '1 second' WHERE id = '%s' AND state = 'running'" % job[0])
            return True
        except RuntimeError:
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
            return False
    wait_for(hold, 20, 0.1)
    other = p.start_worker()
    wait_for(lambda: p.states(job) == {"queued": 1}, 5)
    p.sql("UPDATE jobs SET run_at = now(), announced_at = NULL WHERE id = '%s'" % job[0])
    wait_for(lambda: p.sql("SELECT epoch FROM jobs WHERE id = '%s' AND state = 'running'" % job[0]) == "2", 8)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    r.check("frozen worker: another finishes the job", p.all_in(job, "succeeded", 15), p.states(job))
    targets = p.sql("SELECT string_agg(target, '' ORDER BY n) FROM job_items WHERE job_id = '%s'" % job[0])
    r.check("frozen worker: fenced", targets == "".join(sorted(targets)) and len(targets) == 6 and targets[-1] == "2", targets)
    return other


def drain(w):
    """SIGTERM: running jobs end, nothing new begins, no attempt is lost."""
    ids = p.add_jobs("test.slow", 8, '{"steps": 3, "ms": 200}')
    wait_for(lambda: p.states(ids).get("running", 0) > 0, 5)
    code = p.stop_worker(w)
    states = p.states(ids)
    r.check("SIGTERM: ends with 0 and leaves nothing running", code == 0 and "running" not in states, (code, states))
    crashes = p.sql("SELECT sum(crashes) FROM jobs WHERE id = ANY('{%s}')" % ",".join(ids))
    r.check("SIGTERM: no crash, no attempt counted", crashes == "0" and "succeeded" in states, (crashes, states))
    w = p.start_worker()
    r.check("the rest is done by the next", p.all_in(ids, "succeeded", 15), p.states(ids))
    w.send_signal(signal.SIGHUP)
    ids = p.add_jobs("test.effect", 30)
    r.check("SIGHUP: goes on", p.all_in(ids, "succeeded", 15), p.states(ids))
    job = p.add_jobs("test.slow", 1, '{"steps": 600, "ms": 100}')
    wait_for(lambda: p.states(job) == {"running": 1}, 5)
    p.sql("UPDATE jobs SET cancel_requested_at = now() WHERE id = '%s'" % job[0])
    r.check("a running job is cancelled between steps", p.all_in(job, "cancelled", 8), p.states(job))


def timers():
    slots = p.rows("SELECT name, count(*), count(DISTINCT slot) FROM timer_slots GROUP BY 1")
    names = {s[0] for s in slots}
    r.check("timers fired, one job per slot", {"retention.sweep", "partition.create"} <= names and all(s[1] == s[2] for s in slots), slots)
    bad = p.rows("SELECT kind, error_text FROM jobs WHERE queue = 'tick' AND state NOT IN ('succeeded', 'running', 'queued') "
                 "AND NOT (started_at < '%s' AND finished_at > '%s')" % (crash[1], crash[0]))  # one that the crash hit has failed
    r.check("timers' jobs succeed", bad == [], bad)


def partitions():
    """Months that already stand in the default partition are left out; what is too old goes."""
    p.sql("DROP TABLE %s" % p.sql("SELECT string_agg(inhrelid::regclass::text, ', ') FROM pg_inherits WHERE inhparent = 'events'::regclass"
          " AND inhrelid::regclass::text <> 'events_rest'"), user="hutch_owner")
    p.sql("INSERT INTO events (id, team_id, type, category, actor_type) VALUES (gen_random_uuid(), '%s', 'now', 'x', 'system')" % PLATFORM)
    p.sql("INSERT INTO events (id, at, team_id, type, category, actor_type, seq, gpos) VALUES (gen_random_uuid(), now() - interval "
          "'100 days', '%s', 'old', 'x', 'system', 1, 1)" % PLATFORM)
    p.sql("CREATE TABLE events_2020_01 PARTITION OF events FOR VALUES FROM ('2020-01-01Z') TO ('2020-02-01Z')", user="hutch_owner")
    made = p.sql("SELECT events_partitions(90)")
    kept = p.sql("SELECT string_agg(type, ' ') FROM events")
    r.check("partitions: three made, one dropped, the old rest deleted", made == "4" and kept == "now", (made, kept))


def insertion():
    """What enqueuing processes may do: the roles, the claimed job, the rolled-back transaction."""
    p.sql("BEGIN; SELECT job_insert(gen_random_uuid(), 'test.effect', 'fast', 50, '%s', 'system', NULL, NULL, NULL, NULL, '{}', NULL, "
          "NULL, NULL, NULL, true, NULL, 30) FROM generate_series(1, 50); ROLLBACK" % TEAM_B, user="hutch_app")
    r.check("a rolled-back transaction leaves no job", p.sql("SELECT count(*) FROM jobs WHERE team_id = '%s' AND kind = 'test.effect'"
            " AND state <> 'succeeded'" % TEAM_B) == "0")
    seen = p.sql("SET hutch.team = '%s'; SELECT count(*) FROM jobs WHERE team_id <> '%s'" % (TEAM_A, TEAM_A), user="hutch_app")
    r.check("the API's role sees jobs of its team only", seen == "0", seen)
    seen = p.sql("SET hutch.team = '%s'; SELECT count(*) FROM events WHERE team_id <> '%s'" % (TEAM_A, TEAM_A), user="hutch_app")
    r.check("and events of its team only", seen == "0", seen)
    got = p.sql("SELECT claimed FROM job_insert(gen_random_uuid(), 'capsule.start', 'capsule', 50, '%s', 'system', NULL, NULL, NULL, NULL, "
                "'{}', NULL, 'lock-x', NULL, NULL, true, 'ops', 30)" % PLATFORM, user="hutch_app")
    again = p.sql("SELECT inserted, claimed FROM job_insert(gen_random_uuid(), 'capsule.start', 'capsule', 50, '%s', 'system', NULL, NULL,"
                  " NULL, NULL, '{}', NULL, 'lock-x', NULL, NULL, true, 'ops', 30)" % PLATFORM, user="hutch_app")
    r.check("a job inserted claimed; behind a taken lock it is queued", got == "t" and again == "t|f", (got, again))


p.start()
worker = p.start_worker()
basics(worker)
repeats()
poison(worker)
redis_is_lost()
fairness()
order()
claimed()
postgres_restarts()
timers()
p.stop_worker(worker)
survivor = kills()
survivor = frozen(survivor)
for other in p.workers:
    if other is not survivor and other.poll() is None:
        p.stop_worker(other)
drain(survivor)
insertion()
partitions()
r.end()
