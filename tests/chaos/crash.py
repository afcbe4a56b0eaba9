#!/usr/bin/env python3
"""crash.py - row 3 of spec 02 §9: every named step of every operation on a capsule, killed once.

Steps 1, 2, 6 are the operations pool's (kill -9 between commit and call, before the call, behind it), 3 to 5 the
host agent's. The operations of one round meet their step one after the other, each on a capsule of its own; then
everybody must be in the state that was asked for within 30 s, with the memory and files that it had, done once, and
nothing may be left: machines, folders, uids, control groups, half-written artifacts.

usage: crash.py [ops1 ops2 ops3 ops4 ops6 agent3 agent4 agent5]...   on the instance of the environment, or one of its own
"""
import glob
import os
import shutil
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from chaos import Witness, counts, instance_env, say, tell
from clients import Ledger
from house import TOP, House, until, wire
from promises import SETTLE, Promises

# operation: steps at which the operations pool dies, steps at which the agent dies, the event it leaves behind
STEPS = {
    "create": ((1, 2, 6), (3, 4, 5), "capsule.created"),
    "pause": ((1, 2, 6), (3, 4, 5), "capsule.paused"),
    "resume": ((1, 2, 6), (3, 4, 5), "capsule.running"),
    "hibernate": ((1, 2, 6), (3, 4, 5), "capsule.hibernated"),
    "fork": ((1, 2, 6), (3, 4, 5), "capsule.forked"),
    "snapshot": ((1, 2, 6), (3, 4, 5), "snapshot.created"),
    "rollback": ((1, 2, 3, 4, 6), (3, 4, 5), "capsule.rolled_back"),
    "destroy": ((1, 2, 6), (3, 4, 5), "capsule.destroyed"),
}
AFTER = {"pause": "paused", "hibernate": "hibernated", "destroy": "stopped"}  # the others: running
ROUNDS = [("ops", n) for n in (1, 2, 3, 4, 6)] + [("agent", n) for n in (3, 4, 5)]
MARK = "head -c 200000 /dev/urandom >/dev/shm/m; head -c 200000 /dev/urandom >/root/d; sync"
SUMS = "cat /dev/shm/m /root/d | sha256sum"


class Crash:
    def __init__(self, env):
        self.env, self.house = env, House(env)
        self.ledger = Ledger(env)
        self.started = self.house.sql("SELECT now()")
        self.witness = Witness(self.house)
        self.promises = Promises(self.house, self.ledger, self.witness, None, self.started)
        self.ids, self.sums = {}, {}  # operation -> its capsule; capsule -> what its memory and disk hold
        self.point, self.answers = "", {}
        self.witness.start()

    # ---- calls ----

    def call(self, method, path, body=None, key=None):
        """Whatever it answers: here only what is left behind counts."""
        return self.ledger.call("crash", method, path, body, {"Idempotency-Key": key} if key else None,
                                also=range(400, 600))

    def state(self, capsule):
        return self.call("GET", "/v1/capsules/" + capsule).get("state")

    def reach(self, capsule, state, seconds=180):
        said = until(seconds, lambda: "" if self.state(capsule) == state else "%s is %s" % (capsule, self.state(capsule)))
        if said:
            raise RuntimeError("%s, not %s" % (said, state))

    def wake(self, capsule):
        """A wake that fails leaves it asleep; whoever wants it asks again."""
        def look():
            state = self.state(capsule)
            if state in ("paused", "hibernated", "error"):
                tell("waking %s, which is %s" % (capsule, state))
                self.call("POST", "/v1/capsules/%s/resume?wait=50" % capsule, {})
            return "" if state == "running" else "%s is %s, not running" % (capsule, state)
        said = until(180, look, 1)
        if said:
            raise RuntimeError(said)

    def sh(self, capsule, script):
        """What it says. The way to a capsule that was just woken may take a moment longer."""
        said = []

        def look():
            a = self.call("POST", "/v1/capsules/%s/exec" % capsule, {"cmd": "sh", "args": ["-c", script], "timeout_sec": 60})
            said[:] = [a.get("stdout") if a.status == 200 else "%d %s" % (a.status, a.json)]
            return a.status != 200
        until(60, look, 0.5)
        return said[0]

    def create(self, key):
        return self.call("POST", "/v1/capsules?wait=50", {"memory_mb": 256, "metadata": {"chaos": key}}, key)

    def fresh(self, key):
        answers = []

        def look():  # 503: what others have just left is not free yet
            answers[:] = [self.create(key)]
            return answers[0].status == 503
        until(120, look, 1)
        a = answers[0]
        if a.status != 201:
            raise RuntimeError("create: %d %s" % (a.status, a.json))
        self.ready(a.get("id"))
        return a.get("id")

    def ready(self, capsule):
        self.reach(capsule, "running")
        self.sh(capsule, MARK)
        self.sums[capsule] = self.sh(capsule, SUMS)

    def do(self, op):
        """The call that shall die on its way."""
        capsule, path = self.ids.get(op), "/v1/capsules/%s" % self.ids.get(op)
        if op == "create":
            return self.create(self.key())
        if op == "destroy":
            return self.call("DELETE", path)
        body = {"fork": {"count": 1}, "snapshot": {"name": self.point},
                "rollback": {"snapshot": self.base, "safety_snapshot": self.point == "ops2"}}.get(op, {})
        return self.call("POST", "%s/%s?wait=40" % (path, {"snapshot": "snapshots"}.get(op, op)), body)

    def begin(self, op):
        t = threading.Thread(target=lambda: self.answers.update({op: vars(self.do(op))}))
        t.start()
        return t

    def key(self):
        return "crash-%d-%s" % (os.getpid(), self.point)

    # ---- before ----

    def prepare(self, ops):
        """A capsule per operation, in the state that the operation begins with. On a small machine they are many."""
        self.house.sql("UPDATE hosts SET overcommit_cpu = 16")
        for op in ops:
            if op != "create" and op not in self.ids:
                self.ids[op] = self.fresh("crash-%d-%s-%s" % (os.getpid(), op, self.point))
        if "rollback" in ops and not hasattr(self, "base"):
            a = self.call("POST", "/v1/capsules/%s/snapshots?wait=50" % self.ids["rollback"], {"name": "base"})
            if a.status != 201 or a.get("state") != "ready":
                raise RuntimeError("base snapshot: %d %s" % (a.status, a.json))
            self.base = a.get("id")
        for op in ops:
            if op in self.ids and op != "resume":
                self.wake(self.ids[op])
        if "resume" in ops and self.state(self.ids["resume"]) == "running":
            self.call("POST", "/v1/capsules/%s/pause?wait=50" % self.ids["resume"], {})
            self.reach(self.ids["resume"], "paused")
        if "rollback" in ops:  # what the rollback must take away
            self.sh(self.ids["rollback"], "echo later >/root/d; echo later >/dev/shm/m")
        self.before = {op: self.events(op) for op in ops if op in self.ids}

    def events(self, op):
        return int(self.house.sql("SELECT count(*) FROM events WHERE type = '%s' AND resource_id = '%s' OR type = '%s' AND "
                                  "data->>'capsule_id' = '%s'" % ((STEPS[op][2], self.ids[op]) * 2)))

    # ---- the kills ----

    def restart(self, part, at):
        """The part again, to die at these steps, or as ever."""
        pid = self.house.pid(part)
        if pid:
            os.kill(pid, 15)
            until(90, lambda: self.house.pid(part), 0.1)
        if at:
            self.house.settings["HUTCH_CRASH_AT"] = at
        else:
            self.house.settings.pop("HUTCH_CRASH_AT", None)
        said = self.house.start(part)
        if said:
            raise RuntimeError("%s: %s" % (part, said))

    def deaths(self):
        return len(self.house.log_lines(r"died of signal 9", ["ops.log"]))

    def kill_ops(self, ops):
        self.restart("ops", " ".join("%s.%d" % (op, self.step) for op in ops))
        threads = []
        for op in ops:
            before = self.deaths()
            threads.append(self.begin(op))
            until(90, lambda: "" if self.deaths() > before or not threads[-1].is_alive() else "nobody died", 0.1)
            said = until(15, lambda: "" if self.deaths() > before else "nobody died; answered %s" % self.answers.get(op))
            self.verdict("%s.%d of the operations pool is reached" % (op, self.step), said)
        if self.step > 1:  # the first round has waited for it
            self.house.sql("UPDATE jobs SET lease_until = now() WHERE state = 'running' AND worker LIKE 'ops%'")
        self.since = time.monotonic()
        self.restart("ops", "")
        for t in threads:
            t.join(180)

    def kill_agent(self, ops):
        threads = []
        for op in ops:  # the next kill meets what is made anew after the one before
            self.restart("agent", "%s.%d" % (op, self.step))
            pid = self.house.pid("agent")
            threads.append(self.begin(op))
            said = until(90, lambda: "" if self.house.pid("agent") != pid else "the agent lives", 0.1)
            self.verdict("%s.%d of the agent is reached" % (op, self.step), said)
        self.since = time.monotonic()
        self.restart("agent", "")
        for t in threads:
            t.join(180)

    # ---- after ----

    def verdict(self, name, wrong):
        say("not ok" if wrong else "ok", name, wrong)

    def done(self, op):
        """What is not yet as it was asked for, or nothing."""
        if op == "create":
            rows = self.house.rows("SELECT id, observed_state FROM capsules WHERE metadata->>'chaos' = '%s'" % self.key())
            self.ids["create"] = wire("cl-", rows[0][0]) if rows else None
            return "" if [r[1] for r in rows] == ["running"] else "rows: %s" % rows
        capsule = self.ids[op]
        row = self.house.rows("SELECT observed_state, coalesce(op, '') FROM capsules WHERE id = '%s'" % unwire(capsule))[0]
        if row != [AFTER.get(op, "running"), ""]:
            return "it is %s" % row
        if op == "fork":
            kids = self.house.rows("SELECT observed_state FROM capsules WHERE parent_id = '%s' AND observed_state <> 'stopped'"
                                   % unwire(capsule))
            return "" if kids == [["running"]] else "children: %s" % kids
        if op == "snapshot":
            made = self.house.rows("SELECT state FROM snapshots WHERE name = '%s' AND capsule_id = '%s'" % (self.point, unwire(capsule)))
            return "" if made == [["ready"]] else "snapshots: %s" % made
        return ""

    def settled(self, ops):
        left = {}

        def look():
            left.clear()
            left.update({op: said for op in ops if (said := self.done(op))})
            return left
        until(max(1, SETTLE - (time.monotonic() - self.since)), look, 0.5)
        tell("%s: settled %.1f s behind the last kill" % (self.point, time.monotonic() - self.since))
        for op in ops:
            self.verdict("%s.%d: done within 30 s, on a busy machine %d" % (op, self.step, SETTLE), left.get(op, ""))
        return not left

    def once(self, op):
        """Done once, whoever repeated it."""
        if op == "create":
            again = self.create(self.key())
            return "" if again.get("id") == self.ids["create"] else "asked again: %d %s" % (again.status, again.json)
        made = self.events(op) - self.before[op]
        return "" if made == 1 else "%d events %s" % (made, STEPS[op][2])

    def whole(self, op):
        """Memory and disk as they were."""
        capsule = self.ids[op]
        if op in ("create", "destroy"):
            return ""
        self.wake(capsule)
        said = self.sh(capsule, SUMS)
        return "" if said == self.sums[capsule] else "%s, before %s" % (said, self.sums[capsule])

    def judge(self, ops):
        self.settled(ops)
        for op in ops:
            self.verdict("%s.%d: done once" % (op, self.step), self.once(op))
        for op in ops:
            self.verdict("%s.%d: no byte is lost" % (op, self.step), self.whole(op))
        self.tidy(ops)
        said = until(SETTLE, self.disagree, 1)  # a second look would meet other clones of the pool
        self.verdict("%s: rows, inventory and machines agree; nothing is left" % self.point, "; ".join(said))
        self.verdict("%s: no capsule ran twice" % self.point, "; ".join(self.promises.i5_never_twice()))

    def tidy(self, ops):
        """What the round made goes; what was created is the next to be destroyed."""
        for child in self.house.rows("SELECT id FROM capsules WHERE parent_id IS NOT NULL AND observed_state <> 'stopped' AND "
                                     "created_at >= '%s'" % self.started):
            self.call("DELETE", "/v1/capsules/" + wire("cl-", child[0]))
        if "destroy" in ops:
            self.ids.pop("destroy")
        if self.ids.get("create"):
            self.ids["destroy"] = self.ids.pop("create")

    def disagree(self):
        """I3, I4: rows against the inventory against processes, folders, control groups, artifacts."""
        answer = self.house.agent("/capsules")
        if not answer or not answer["journal_complete"]:
            return ["inventory: %s" % answer]
        held = {c["id"]: (c["state"], str(c["epoch"])) for c in answer["capsules"]}
        rows = {wire("cl-", i): (s, e) for i, s, e in self.house.rows(
            "SELECT id, observed_state, epoch FROM capsules WHERE observed_state <> 'stopped'")}
        # a wake that failed: the row sleeps on, its host shows the try until the next one
        failed = {i for i, (state, epoch) in rows.items() if state == "hibernated" and held.get(i) == ("error", epoch)}
        out = ["%s: row %s, host %s" % (i, rows.get(i), held.get(i)) for i in sorted(set(rows) | set(held))
               if rows.get(i) != held.get(i) and i not in failed]
        machines = self.house.machines()
        out += ["machine %s has %d processes" % (vm, len(pids)) for vm, pids in machines.items() if len(pids) > 1]
        out += ["%s has no machine" % i for i, (state, _) in held.items() if state == "running" and not self.house.machine_of(i)]
        try:
            uids = {os.stat("/proc/%d" % pids[0]).st_uid for pids in machines.values()}
            left = self.promises.i4_nothing_left()
        except (OSError, TypeError) as e:
            return ["one went while we looked: %s" % e]
        place = os.stat(self.house.state)
        own = "hutch-%x-%x" % (place.st_dev, place.st_ino)  # other agents of this machine have theirs
        groups = {int(os.path.basename(p)[1:]) for p in glob.glob("/sys/fs/cgroup/**/%s/u[0-9]*" % own, recursive=True)}
        mine = range(self.house.uid_first, self.house.uid_first + self.house.uid_count)
        out += ["control group of uid %d" % u for u in sorted(groups - uids) if u in mine]
        out += ["half an artifact: %s" % p for p in glob.glob(self.house.state + "/artifacts/*.tmp*")]
        return out + left

    def round(self, part, step):
        self.point, self.step = "%s%d" % (part, step), step
        ops = [op for op, (pool, agent, _) in STEPS.items() if step in (pool if part == "ops" else agent)]
        begin = time.monotonic()
        self.prepare(ops)
        (self.kill_ops if part == "ops" else self.kill_agent)(ops)
        self.judge(ops)
        tell("%s: %.0f s" % (self.point, time.monotonic() - begin))

    def end(self):
        self.witness.done.set()
        self.house.sql("UPDATE hosts SET overcommit_cpu = NULL")
        for part in ("ops", "agent"):
            if "HUTCH_CRASH_AT" in self.house.settings:
                self.restart(part, "")
        for i in self.house.rows("SELECT id FROM capsules WHERE metadata->>'chaos' LIKE 'crash-%%' AND created_at >= '%s' AND "
                                 "observed_state <> 'stopped' OR parent_id IS NOT NULL AND observed_state <> 'stopped'" % self.started):
            self.call("DELETE", "/v1/capsules/" + wire("cl-", i[0]))


def unwire(text):
    n = int(text.split("-", 1)[1], 36)
    return "%08x-%04x-%04x-%04x-%012x" % (n >> 96, n >> 80 & 0xffff, n >> 64 & 0xffff, n >> 48 & 0xffff, n & (1 << 48) - 1)


def shake(env, rounds):
    crash = Crash(env)
    crash.house.mark_logs()
    try:
        for part, step in rounds:
            try:
                crash.round(part, step)
            except (RuntimeError, OSError, KeyError, IndexError) as e:
                say("not ok", "%s%d" % (part, step), "%s: %s" % (type(e).__name__, e))
        for name in ("i11_no_sanitizer", "i11_no_bad_sql", "i7_audit_verifies"):
            crash.verdict(name, "; ".join(getattr(crash.promises, name)()[:3]))
    finally:
        crash.end()
        crash.house.unmark_logs()


def main():
    wanted = sys.argv[1:] or [part + str(step) for part, step in ROUNDS]
    if not set(wanted) <= {part + str(step) for part, step in ROUNDS}:
        sys.stderr.write(__doc__)
        return 2
    instance, own = TOP + "/tests/lib/instance", "HUTCH_RUN" not in os.environ
    where = os.environ.get("HUTCH_RUN") or os.environ.get("HUTCH_CHAOS_RUN", "/tmp/hutch-crash")
    try:
        if own:
            subprocess.run([instance, "start", where], check=True, stdout=subprocess.DEVNULL)
        shake(instance_env(instance, where), [r for r in ROUNDS if r[0] + str(r[1]) in wanted])
    finally:
        if own and not os.environ.get("KEEP"):
            subprocess.run([instance, "stop", where], check=False, stdout=subprocess.DEVNULL)
            shutil.rmtree(where, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (counts["ok"], counts["not ok"], counts["skip"]))
    return 1 if counts["not ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
