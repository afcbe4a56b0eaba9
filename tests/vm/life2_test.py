#!/usr/bin/env python3
"""life2_test.py - what time, policy and failure do to capsules, on a running instance (spec 02 §1.3, §1.5, §2.3).

usage: life2_test.py [PART...]   (the instance is named by the environment, as for tests/http/run)
Parts wait for timers of ten and fifteen seconds, so three of them run at once. What would take hours is brought
near by moving a row's time: the age of an artifact, a warning's distance, the wait for a host.
"""
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True
from life_test import FAILED, born, call, check, create, sh, sql, until, unwire

STATE = os.environ["HUTCH_RUN"] + "/agent"
MARK = "echo one >/root/x; echo one >/dev/shm/x; sync"


def agent(path):
    """The host agent's own answer."""
    out = subprocess.run(["curl", "-fsS", "-m", "60", "--http2-prior-knowledge", "--unix-socket",
                          os.environ["HUTCH_SOCK"] + "/agent.sock", "http://agent/agent/v1" + path], capture_output=True, text=True)
    return json.loads(out.stdout)


def held():
    return {c["id"]: c for c in agent("/capsules")["capsules"]}


def wait(what, seconds=120, step=0.3):
    """What it says, as soon as it is true; or at last."""
    end = time.time() + seconds
    while not (said := what()) and time.time() < end:
        time.sleep(step)
    return said


def events(cid, kind):
    return [json.loads(x) for x in sql("SELECT data FROM events WHERE resource_id = '%s' AND type = '%s' ORDER BY pos"
                                       % (cid, kind)).split("\n") if x]


def post(cid, verb, body=None, seconds=50):
    """503: what others have just left is not free yet, or their host's heartbeat came late."""
    end = time.time() + 120
    while True:
        status, got = call("POST", "/v1/capsules/%s/%s?wait=%d" % (cid, verb, seconds), body or {})
        if status != 503 or time.time() > end:
            return status, got
        time.sleep(1)


def end_machine(cid):
    """kill -9 of its QEMU; waits until the row says so."""
    with open(STATE + "/journal", encoding="utf-8", errors="replace") as f:
        rows = [json.loads(x[9:]) for x in f.read().split("\n")[:-1]]
    with open(STATE + "/instance", encoding="utf-8") as f:
        vm = "hutch-%s-%s" % (f.read().strip(), [r["vm"] for r in rows if r.get("id") == cid and "vm" in r][-1])
    for pid in (int(d) for d in os.listdir("/proc") if d.isdigit()):
        try:
            with open("/proc/%d/cmdline" % pid, encoding="utf-8", errors="replace") as f:
                words = f.read().split("\0")
        except OSError:
            continue
        if words[0].endswith("qemu-system-x86_64") and vm in words:
            os.kill(pid, 9)
            return
    raise RuntimeError("%s has no machine" % cid)


def run_timer(kind):
    """A timer's job now; waits for its end."""
    job = sql("SELECT (job_insert(gen_random_uuid(), '%s', 'tick', 5, '00000000-0000-0000-0000-000000000000', 'system', NULL, NULL, "
              "'test', NULL, '{}', NULL, NULL, NULL, now() + interval '10 minutes', false, NULL, 30)).id" % kind)
    return wait(lambda: sql("SELECT state FROM jobs WHERE id = '%s' AND state IN ('succeeded','failed')" % job))


# ---- destroyed while it slept

def destroyed_asleep():
    told, unheard = create()["id"], create()["id"]
    for cid in (told, unheard):
        status, c = post(cid, "hibernate")
        check("destroyed asleep: it sleeps", status == 200 and c["state"] == "hibernated" and cid in held(), c)
    sql("DELETE FROM capsule_images WHERE capsule_id = '%s'" % unwire(unheard))  # nobody knows any more whom to tell
    for cid in (told, unheard):
        call("DELETE", "/v1/capsules/" + cid)
        until(cid, "stopped")
    check("destroyed asleep: its host forgets it", wait(lambda: told not in held()))
    check("destroyed asleep: a host that did not hear it forgets it by its inventory", wait(lambda: unheard not in held()))
    found = sql("SELECT string_agg(data->>'reason', ' ') FROM events WHERE type = 'host.orphan_found'").split()
    check("destroyed asleep: nobody calls it an orphan", not {told, unheard} & set(found), found)


# ---- time

def lifetime():
    a = born(max_lifetime_sec=4)["id"]
    b = born(max_lifetime_sec=4, on_max_lifetime="destroy")["id"]
    c = until(a, "hibernated")
    check("lifetime: it is hibernated", c["paused_by"] == "lifetime", c)
    status, got = sh(a, "true")
    check("lifetime: no call wakes it", status == 409 and got["error"]["code"] == "invalid_state", got)
    until(b, "stopped")
    n = sql("SELECT count(*) FROM audit_logs WHERE resource_id = '%s' AND action = 'destroy' AND actor_type = 'system'" % b)
    check("lifetime: it is destroyed, by the system, once", n == "1", n)
    status, c = post(a, "resume")
    # its time is over: the policy may have put it to sleep again already, but it ran
    check("lifetime: a person may wake it", status == 200 and wait(lambda: len(events(a, "capsule.running")) >= 2), c)
    call("DELETE", "/v1/capsules/" + a)


def warned():
    cid = create(max_lifetime_sec=3600, timeout_sec=300)["id"]
    u, made = unwire(cid), time.time()
    sql("UPDATE capsules SET started_at = now() - interval '3020 s' WHERE id = '%s'" % u)
    got = wait(lambda: events(cid, "capsule.expiring"))
    check("warnings: ten minutes before the end", len(got or []) == 1, got)

    def last_minute():  # told again and again: it is never over before the policy looks
        sql("UPDATE capsules SET started_at = now() - interval '3550 s' WHERE id = '%s'" % u)
        return len(events(cid, "capsule.expiring")) > 1 and events(cid, "capsule.expiring")

    got = wait(last_minute)
    check("warnings: one minute before", len(got or []) == 2 and got[1]["action"] == "hibernate", got)
    sql("UPDATE capsules SET started_at = now() WHERE id = '%s'" % u)
    # what its host says of a use of the last 15 s makes the warnings new
    wait(lambda: time.time() > made + 17)

    def idle():  # told again and again: its host's heartbeat says how idle it really is
        sql("UPDATE capsules SET idle_since = now() - interval '250 s' WHERE id = '%s'" % u)
        return len(events(cid, "capsule.idle")) > 1 and events(cid, "capsule.idle")

    got = wait(idle)
    check("warnings: idle for 80 % of its time, and a minute before", len(got or []) == 2 and got[0]["action"] == "pause", got)
    time.sleep(11)
    check("warnings: each once", len(events(cid, "capsule.expiring")) == 2 and len(events(cid, "capsule.idle")) == 2,
          (events(cid, "capsule.expiring"), events(cid, "capsule.idle")))
    call("DELETE", "/v1/capsules/" + cid)


def fixed():
    cid = born(timeout_sec=8, timeout_mode="fixed")["id"]
    said = []
    # the event tells: a call may wake it before the pause is seen
    slept = wait(lambda: said.append(sh(cid, "true")[0]) or events(cid, "capsule.paused"), 120, 1) or []
    c = call("GET", "/v1/capsules/" + cid)[1]
    check("fixed: its use does not move the end", len(slept) >= 1 and slept[0]["reason"] == "idle", (c, slept, said))
    call("DELETE", "/v1/capsules/" + cid)


def idle_destroys():
    cid = born(timeout_sec=2, idle_action="destroy")["id"]
    until(cid, "stopped")
    n = sql("SELECT string_agg(metadata->>'cause', ' ') FROM audit_logs WHERE resource_id = '%s' AND action = 'destroy'" % cid)
    check("idle: the control plane destroys it, once", n == "idle", n)
    check("idle: nothing is left at its host", wait(lambda: cid not in held()))


def waits_for_host():
    cid = create()["id"]
    call("DELETE", "/v1/capsules/" + cid)
    until(cid, "stopped")
    u = unwire(cid)
    sql("UPDATE capsules SET observed_state = 'pending', desired_state = 'running', host_tags = '{nowhere}', host_id = NULL, "
        "epoch = epoch + 1, starts = 0 WHERE id = '%s'" % u)
    sql("UPDATE capsules SET state_since = now() - interval '20 s' WHERE id = '%s'" % u)
    tries = wait(lambda: sql("SELECT count(*) FROM jobs WHERE kind = 'capsule.start' AND args->>'capsule' = '%s' AND state = 'queued' "
                             "AND started_at > now() - interval '1 minute' AND args->>'epoch' = '2'" % cid) != "0")
    check("pending: it waits for a host", tries and call("GET", "/v1/capsules/" + cid)[1]["state"] == "pending")
    sql("UPDATE capsules SET state_since = now() - interval '301 s' WHERE id = '%s'" % u)
    c = until(cid, "error")
    check("pending: after host.place_sec it is no_hosts_available", c["error"]["code"] == "no_hosts_available", c)
    sql("UPDATE capsules SET state_since = now() - interval '61 minutes' WHERE id = '%s'" % u)
    check("pending: what never ran goes after an hour", until(cid, "stopped")["state"] == "stopped")


# ---- failure

def recover():
    cid = create()["id"]
    sh(cid, MARK)
    post(cid, "hibernate")
    post(cid, "resume")
    until(cid, "running")
    sh(cid, "echo two >/root/x; echo two >/dev/shm/x; sync")
    end_machine(cid)
    c = until(cid, "error")
    check("recover: a killed machine is an error", c["error"]["code"] == "vmm_exit", c)
    status, c = post(cid, "recover", {"from": "image"})
    check("recover: from its image", status in (200, 202), c)
    c = until(cid, "running error")
    status, a = sh(cid, "cat /root/x /dev/shm/x")
    check("recover: memory and disk as when it slept, and it says what is lost",
          status == 200 and a["stdout"] == "one\none\n" and c["warnings"], (c, a))
    status, c = post(cid, "recover", {})
    check("recover: one that runs is 409", status == 409, c)
    sh(cid, "echo three >/root/x; echo three >/dev/shm/x")
    status, s = call("POST", "/v1/capsules/%s/snapshots?wait=50" % cid, {"name": "three"})
    check("recover: a snapshot", status == 201 and s["state"] == "ready", s)
    sh(cid, "echo four >/root/x")
    end_machine(cid)
    until(cid, "error")
    status, c = post(cid, "recover", {"from": "snapshot"})
    c = until(cid, "running error")
    status, a = sh(cid, "cat /root/x /dev/shm/x")
    check("recover: from its newest snapshot", status == 200 and a["stdout"] == "three\nthree\n", (c, a))
    call("DELETE", "/v1/capsules/" + cid)


def restarted():
    cid = create(restart_policy="on_failure")["id"]
    sh(cid, MARK)
    for n in range(1, 4):
        end_machine(cid)
        got = wait(lambda: len(events(cid, "capsule.error")) == n)
        c = until(cid, "running")
        status, a = sh(cid, "cat /root/x")
        check("restart_policy: it starts again from its disk, time %d" % n, got and c["start_mode"] == "cold" and status == 200
              and a["stdout"] == "one\n", (c, a))
    end_machine(cid)
    wait(lambda: len(events(cid, "capsule.error")) == 4)
    time.sleep(3)
    c = call("GET", "/v1/capsules/" + cid)[1]
    check("restart_policy: three times an hour", c["state"] == "error", c)
    n = sql("SELECT count(*) FROM audit_logs WHERE resource_id = '%s' AND metadata->>'cause' = 'restart_policy' AND actor_type = 'system'"
            % cid)
    check("restart_policy: audited, by the system", n == "3", n)
    call("DELETE", "/v1/capsules/" + cid)


def cold():
    """What becomes of the disk of a machine that ended; sizes that wait for a cold boot."""
    cid = create()["id"]
    sh(cid, MARK)
    path = "/v1/capsules/" + cid
    status, c = call("PATCH", path, {"disk_size_mb": 1024})
    check("cold: a disk does not shrink", status == 400 and "disk_size_mb" in c["error"]["message"], (status, c))
    status, c = call("PATCH", path, {"vcpus": 2, "memory_mb": 384, "disk_size_mb": 6144})
    check("cold: sizes wait", status == 200 and (c["vcpus"], c["memory_mb"], c["disk_size_mb"]) == (1, 256, 6144) and c["warnings"], c)
    end_machine(cid)
    until(cid, "error")
    check("cold: without a policy it stays in error", wait(lambda: call("GET", path)[1]["state"] != "error", 3) is False)
    status, c = post(cid, "resume")
    c = until(cid, "running error")
    status, a = sh(cid, "cat /root/x; ls /dev/shm; nproc; df -m / | tail -1 | awk '{print ($2 > 5500)}'")
    check("cold: resume from error boots the disk, with the new sizes", c["state"] == "running" and c["start_mode"] == "cold" and
          (c["vcpus"], c["memory_mb"], c["disk_size_mb"], c["warnings"]) == (2, 384, 6144, []) and
          status == 200 and a["stdout"] == "one\n2\n1\n" and not c.get("error"), (c, a))
    end_machine(cid)
    until(cid, "error")
    status, c = post(cid, "recover", {"from": "disk"})
    check("cold: recover from the disk that its host kept", status in (200, 202), (status, c))
    c = until(cid, "running error")
    status, a = sh(cid, "cat /root/x")
    check("cold: it says that the memory is lost", c["state"] == "running" and c["warnings"] and status == 200 and a["stdout"] == "one\n", (c, a))
    call("DELETE", path)


def no_room():
    """Alone: its host takes nothing new. The disk is sealed, and starts where there is room."""
    cid = create()["id"]
    sh(cid, MARK)
    path = "/v1/capsules/" + cid
    end_machine(cid)
    until(cid, "error")
    host = sql("SELECT host_id FROM capsules WHERE id = '%s'" % unwire(cid))
    sql("UPDATE capsules SET host_tags = '{}' WHERE id = '%s'; UPDATE hosts SET schedulable = false WHERE id = '%s'" % (unwire(cid), host))
    try:
        status, c = post(cid, "recover", {"from": "disk"})
        c = until(cid, "hibernated")
    finally:
        sql("UPDATE hosts SET schedulable = true WHERE id = '%s'" % host)
    check("cold: recover from the disk of a host without room: sealed, it sleeps", c["state"] == "hibernated", c)
    status, c = post(cid, "resume")
    c = until(cid, "running error")
    status, a = sh(cid, "cat /root/x")
    check("cold: and it wakes", c["state"] == "running" and status == 200 and a["stdout"] == "one\n", (c, a))
    call("DELETE", path)


def reboots():
    cid = create(restart_policy="on_failure")["id"]
    sh(cid, "sync; (sleep 0.5; reboot -f) >/dev/null 2>&1 &")
    got = wait(lambda: events(cid, "capsule.rebooted"))
    status, a = wait(lambda: (lambda x: x[0] == 200 and x)(sh(cid, "uptime -p"))) or (0, None)
    check("reboot: an event, and it runs", len(got or []) == 1 and status == 200, (got, a))
    call("DELETE", "/v1/capsules/" + cid)


# ---- a job that runs twice does the thing once

def jobs_of(cid, kind):
    return sql("SELECT id FROM jobs WHERE kind = '%s' AND args->>'capsule' = '%s' ORDER BY created_at" % (kind, cid)).split()


def doubled(cid, kind, method, path, body, event):
    """The call; as soon as its job is there a second one with the same words; at the end all of them once more."""
    u = unwire(cid)
    before = len(events(cid, event)) if event else 0
    known = set(jobs_of(cid, kind))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(call, method, path, body)
        new = wait(lambda: set(jobs_of(cid, kind)) - known, 60, 0.02)
        sql("SELECT job_insert(gen_random_uuid(), kind, queue, priority, team_id, 'system', NULL, NULL, 'test', NULL, args, NULL, "
            "NULL, NULL, now() + interval '10 minutes', false, NULL, 30) FROM jobs WHERE id = '%s'" % list(new)[0])
        status, got = answer.result()
    ended = "SELECT count(*) FROM jobs WHERE kind = '%s' AND args->>'capsule' = '%s' AND state IN ('queued','running')" % (kind, cid)
    wait(lambda: sql(ended) == "0")
    row = "SELECT observed_state, epoch, starts, coalesce(op, ''), generation FROM capsules WHERE id = '%s'" % u
    first = sql(row)
    sql("UPDATE jobs SET state = 'queued', finished_at = NULL, run_at = now(), announced_at = NULL, error_code = NULL, deadline_at = "
        "now() + interval '10 minutes' WHERE kind = '%s' AND args->>'capsule' = '%s'" % (kind, cid))
    wait(lambda: sql(ended) == "0")
    failed = sql("SELECT count(*) FROM jobs WHERE kind = '%s' AND args->>'capsule' = '%s' AND state <> 'succeeded'" % (kind, cid))
    n = len(events(cid, event)) - before if event else 1
    check("twice: %s" % kind, 200 <= status < 300 and sql(row) == first and failed == "0" and n == 1,
          (status, got if status > 299 else "", first, sql(row), failed, n))
    return got


def twice():
    cid = create()["id"]
    path = "/v1/capsules/" + cid
    sh(cid, MARK)
    doubled(cid, "capsule.pause", "POST", path + "/pause", {}, "capsule.paused")
    doubled(cid, "capsule.resume", "POST", path + "/resume?wait=50", {}, "capsule.running")
    s = doubled(cid, "capsule.snapshot", "POST", path + "/snapshots?wait=50", {"name": "s"}, None)
    n = sql("SELECT string_agg(state, ' ') FROM snapshots WHERE capsule_id = '%s'" % unwire(cid))
    check("twice: one snapshot", n == "ready", n)
    doubled(cid, "capsule.fork", "POST", path + "/fork?wait=50", {"count": 1}, None)
    kids = sql("SELECT id FROM capsules WHERE parent_id = '%s'" % unwire(cid)).split()
    check("twice: one child", len(kids) == 1, kids)
    sql("UPDATE capsules SET observed_state = 'stopping', desired_state = 'stopped' WHERE parent_id = '%s'" % unwire(cid))
    doubled(cid, "capsule.rollback", "POST", path + "/rollback?wait=50", {"snapshot": s["id"]}, "capsule.rolled_back")
    doubled(cid, "capsule.update", "PATCH", path, {"timeout_sec": 900}, None)
    doubled(cid, "capsule.hibernate", "POST", path + "/hibernate?wait=50", {}, "capsule.hibernated")
    post(cid, "resume")
    status, a = sh(cid, "cat /root/x /dev/shm/x")
    check("twice: no byte is lost", status == 200 and a["stdout"] == "one\none\n", a)
    doubled(cid, "capsule.destroy", "DELETE", path, None, "capsule.destroyed")


# ---- what nobody needs

def copies(cid=None):
    """Artifacts that lie at the host."""
    return {d for d in os.listdir(STATE + "/artifacts") if len(d) == 64}


def named():
    return set(sql("SELECT encode(unnest(ARRAY[memory_artifact, disk_artifact]), 'hex') FROM capsule_images UNION "
                   "SELECT encode(unnest(ARRAY[memory_artifact, disk_artifact]), 'hex') FROM snapshots").split("\n")) - {""}


def expiry_and_gc():
    cid = create()["id"]
    sh(cid, MARK)
    status, short = call("POST", "/v1/capsules/%s/snapshots?wait=50" % cid, {"name": "short", "expires_in_sec": 3600})
    status, kept = call("POST", "/v1/capsules/%s/snapshots?wait=50" % cid, {"name": "kept"})
    status, c = post(cid, "hibernate")
    ids = {x: sql("SELECT encode(disk_artifact, 'hex') || ' ' || encode(memory_artifact, 'hex') FROM snapshots WHERE id = '%s'"
                  % unwire(s["id"])).split() for x, s in (("short", short), ("kept", kept))}
    check("expiry: both have images", len(ids["short"]) == len(ids["kept"]) == 2, ids)
    sql("UPDATE snapshots SET expires_at = expires_at - interval '1 hour' WHERE id = '%s'" % unwire(short["id"]))
    gone = wait(lambda: call("GET", "/v1/snapshots/" + short["id"])[0] == 404)
    check("expiry: a snapshot whose time is over goes, another stays", gone and call("GET", "/v1/snapshots/" + kept["id"])[0] == 200)
    n = sql("SELECT count(*) FROM audit_logs WHERE resource_id = '%s' AND action = 'delete' AND actor_type = 'system'" % short["id"])
    check("expiry: audited, by the system", n == "1", n)
    check("gc: it ends", run_timer("artifact.gc") == "succeeded")
    check("gc: what is younger than an hour stays", set(ids["short"]) <= copies() | named(), (ids, copies()))
    for _ in range(10):  # a parent goes behind its child; what its host still needed is named anew
        # of this capsule alone: what other parts are just making is not named yet
        sql("UPDATE artifacts SET named_at = now() - interval '2 hours' WHERE encode(id, 'hex') IN ('%s')" % "', '".join(ids["short"]))
        run_timer("artifact.gc")
        left = copies()
        if not set(ids["short"]) & (left - lying_on(left)):
            break
    check("gc: what nothing names is gone", not set(ids["short"]) & (left - lying_on(left)), (ids, left))
    check("gc: what images and snapshots name is there", wait(lambda: named() <= copies(), 20), named() - copies())
    status, c = post(cid, "resume")
    status, a = sh(cid, "cat /root/x /dev/shm/x")
    check("gc: the sleeper wakes", status == 200 and a["stdout"] == "one\none\n", (c, a))
    status, c = post(cid, "rollback", {"snapshot": kept["id"]})
    status, a = sh(cid, "cat /root/x /dev/shm/x")
    check("gc: the snapshot is whole", status == 200 and a["stdout"] == "one\none\n", (c, a))
    call("DELETE", "/v1/capsules/" + cid)


def lying_on(left):
    """Artifacts that others, which are there, have as their parent."""
    out = set()
    for d in left:
        try:
            with open("%s/artifacts/%s/manifest.json" % (STATE, d), encoding="utf-8") as f:
                out.add(json.load(f).get("parent"))
        except FileNotFoundError:  # of another part's capsule, and gone meanwhile
            pass
    return out


# the long ones first
PARTS = (twice, cold, restarted, recover, expiry_and_gc, destroyed_asleep, lifetime, warned, waits_for_host, reboots, fixed,
         idle_destroys)
ALONE = (no_room,)


def one(part):
    began = time.time()
    try:
        part()
    except Exception as e:  # the others are tested all the same
        check(part.__name__, False, "%s: %s" % (type(e).__name__, e))
    print("# %s: %.0f s" % (part.__name__, time.time() - began), flush=True)


def main():
    sql("UPDATE hosts SET overcommit_cpu = 16")  # on a small machine they are many
    try:
        with ThreadPoolExecutor(3) as pool:
            list(pool.map(one, [p for p in PARTS if not sys.argv[1:] or p.__name__ in sys.argv[1:]]))
        for part in ALONE:
            if not sys.argv[1:] or part.__name__ in sys.argv[1:]:
                one(part)
    finally:
        sql("UPDATE hosts SET overcommit_cpu = NULL")
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
