"""promises.py - what must hold when all parts are back: I1 to I7 and I11 of ARCHITECTURE.md.

Each check says what is wrong, or nothing. Those of WITHIN may need up to SETTLE seconds to come true.
"""
import json

from house import PARTS, until, wire

SETTLE = 60  # 30 s are promised, on a machine that has nothing else to do
# Timers tick again in the next period, whatever became of the last tick.
TIMERS = "(SELECT name FROM timer_slots)"
SANITIZER = r"(Address|Leak|UndefinedBehavior|Thread)Sanitizer|runtime error:"
SIGNALLED = r"signal (4|6|7|8|11)\b|segfault"


class Promises:
    def __init__(self, house, ledger, witness, keys, started):
        self.house, self.ledger, self.witness, self.keys, self.started = house, ledger, witness, keys, started

    def rows_by_id(self):
        """State of each capsule that the clients asked for."""
        return {wire("cl-", i): state for i, state in self.house.rows(
            "SELECT id, observed_state FROM capsules WHERE metadata ? 'chaos' AND created_at >= '%s'" % self.started)}

    # ---- I1, I2 ----

    def i1_capsules_readable(self):
        """every acknowledged capsule is readable"""
        known = self.rows_by_id()
        return ["%s: GET %s, row %s" % (i, a.status, known.get(i)) for i in sorted(self.ledger.acked())
                if (a := self.ledger.call("get", "GET", "/v1/capsules/" + i, also=(404,))).status != 200 or i not in known]

    def i1_destroys_happen(self):
        """every acknowledged destroy leaves a stopped capsule"""
        known = self.rows_by_id()
        return ["%s is %s" % (i, known.get(i)) for i in sorted(self.ledger.destroyed) if known.get(i) != "stopped"]

    def i1_keys_readable(self):
        """every acknowledged API key is there, every removed one is gone"""
        ids = {wire("key-", r[0]) for r in self.house.rows("SELECT id FROM api_keys")}
        out = []
        for key in sorted(i for made in self.ledger.keys.values() for i in made):
            gone = key in self.ledger.revoked
            if (key in ids) == gone or self.keys.readable(key) != (404 if gone else 200):
                out.append("%s, %s" % (key, "removed" if gone else "live"))
        return out

    def i2_one_key_one_effect(self):
        """one idempotency key, one capsule or API key"""
        out = ["%s: %s" % (k, sorted(ids)) for book in (self.ledger.capsules, self.ledger.keys)
               for k, ids in book.items() if len(ids) != 1]
        out += ["capsules of %s: %s" % (k, n) for k, n in self.house.rows(
            "SELECT metadata->>'chaos', count(*) FROM capsules WHERE metadata ? 'chaos' AND created_at >= '%s' "
            "GROUP BY 1 HAVING count(*) > 1" % self.started)]
        out += ["API keys of %s: %s" % (k, n) for k, n in self.house.rows(
            "SELECT name, count(*) FROM api_keys WHERE name LIKE 'chaos-%%' AND created_at >= '%s' "
            "GROUP BY 1 HAVING count(*) > 1" % self.started)]
        unknown = set(self.rows_by_id()) - self.ledger.acked()
        return out + ["%s was made, nobody was told" % i for i in sorted(unknown)]

    def i2_replays(self):
        """a create that is asked for again gives the same capsule"""
        out = []
        for key, ids in list(self.ledger.capsules.items())[-12:]:
            again = self.ledger.create(key)
            if {again} != ids:
                out.append("%s: %s, before %s" % (key, again, sorted(ids)))
        return out

    # ---- I3, I4, I5 ----

    def i3_rows_and_machines(self):
        """rows, the agent's inventory and QEMUs agree"""
        answer = self.house.agent("/capsules")
        if not answer or not answer["journal_complete"]:
            return ["inventory: %s" % json.dumps(answer)[:200]]
        rows = {wire("cl-", i) for i, in self.house.rows("SELECT id FROM capsules WHERE observed_state = 'running'")}
        moving = self.house.rows("SELECT id, observed_state FROM capsules WHERE host_id IS NOT NULL "
                                 "AND observed_state NOT IN ('running','error')")
        held = {c["id"] for c in answer["capsules"] if c["state"] == "running"}
        alive = {i for i in held if self.house.machine_of(i)}
        out = ["%s is %s" % (wire("cl-", i), state) for i, state in moving]
        out += ["%s: running row, not in the inventory" % i for i in sorted(rows - held)]
        out += ["%s: in the inventory, no running row" % i for i in sorted(held - rows)]
        out += ["%s: in the inventory, no QEMU" % i for i in sorted(held - alive)]
        return out + ["%s: QEMU of a gone capsule" % i for i in sorted(self.ledger.destroyed) if self.house.machine_of(i)]

    def i3_killed_machine(self):
        """a capsule whose QEMU was killed says so"""
        known = self.rows_by_id()
        return ["%s is %s" % (i, known.get(i)) for i in self.ledger.murdered if known.get(i) not in ("error", "stopped")]

    def i4_nothing_left(self):
        """no machine, folder or uid is left of what is gone"""
        info = self.house.agent("/info")
        if not info:
            return ["the agent does not answer"]
        clones = sum(p["ready"] + p["waiting"] for p in info["pools"].values())
        listed = {c["id"]: c["state"] for c in self.house.agent("/capsules")["capsules"]}
        names = {r["vm"]: r["id"] for r in self.house.journal() if "vm" in r and r.get("id") in listed}
        machines, folders, out = self.house.machines(), self.house.folders(), []
        if info["starting"] or len(set(machines) - set(names)) > clones:
            out.append("%d machines of no capsule, %d clones in the pool; %d starting"
                       % (len(set(machines) - set(names)), clones, info["starting"]))
        # a capsule whose machine ended keeps its disk until it is destroyed
        out += ["folder %s has no machine" % f for f in folders if f not in machines and listed.get(names.get(f)) != "error"]
        out += ["machine %s has no folder" % m for m in machines if m not in folders]
        if info["uids_free"] + len(folders) != self.house.uid_count:
            out.append("%d uids free of %d, %d in use" % (info["uids_free"], self.house.uid_count, len(folders)))
        return out + ["process %s has a machine's uid" % s for s in self.house.strangers()]

    def i4_nothing_reserved(self):
        """nothing is reserved on the host for what is gone"""
        return ["%s %s" % (wire("cl-", i), s) for i, s in self.house.rows(
            "SELECT id, observed_state FROM capsules WHERE metadata ? 'chaos' AND created_at >= '%s' "
            "AND (host_id IS NOT NULL OR observed_state <> 'stopped')" % self.started)]

    def i5_never_twice(self):
        """no capsule ran twice"""
        epochs = {wire("cl-", i): int(e) for i, e in self.house.rows("SELECT id, epoch FROM capsules")}
        out = ["%s epoch %d was up in %s" % (i, e, sorted(vms)) for (i, e), vms in list(self.witness.ups.items()) if len(vms) > 1]
        out += ["%s: epoch %d in the journal, %s in the row" % (i, e, epochs.get(i)) for i, e in list(self.witness.ups)
                if i in self.ledger.acked() and e > epochs.get(i, 0)]
        return out + self.witness.twice + ([] if self.witness.ups else ["the witness saw no start"])

    # ---- I6, I7 ----

    def i6_jobs_end(self):
        """every job ended, none failed"""
        return ["%s %s %s: attempt %s, crash %s, %s %s" % tuple(r) for r in self.house.rows(
            "SELECT kind, id, state, attempts, crashes, coalesce(error_code, ''), coalesce(error_text, '') FROM jobs "
            "WHERE created_at >= '%s' AND kind NOT IN %s AND state IN ('queued','running','failed')" % (self.started, TIMERS))]

    def i6_timers_tick(self):
        """timers tick on: one succeeded in the last half minute"""
        return [kind for kind in ("capsule.reconcile", "capsule.policy", "host.monitor", "usage.sample") if self.house.sql(
            "SELECT count(*) FROM jobs WHERE kind = '%s' AND state = 'succeeded' AND finished_at > now() - interval '30 s'"
            % kind) == "0"]

    def i6_events_once(self):
        """one event per create, destroy and start"""
        out = []
        counts = {}
        for ident, kind, n in self.house.rows("SELECT capsule_id, type, count(*) FROM events WHERE capsule_id IS NOT NULL "
                                              "AND at >= '%s' GROUP BY 1, 2" % self.started):
            counts.setdefault(wire("cl-", ident), {})[kind] = int(n)
        starts = {wire("cl-", i): int(n) for i, n in self.house.rows("SELECT id, starts FROM capsules")}
        for i in sorted(self.ledger.acked()):
            have = counts.get(i, {})
            want = {"capsule.created": 1, "capsule.destroyed": int(i in self.ledger.destroyed), "capsule.running": starts.get(i)}
            out += ["%s: %d %s, not %s" % (i, have.get(k, 0), k, n) for k, n in want.items() if have.get(k, 0) != n]
        return out

    def i6_events_numbered(self):
        """the relay has numbered every event, without a gap"""
        out = ["%s %s has no number" % tuple(r) for r in self.house.rows(
            "SELECT type, id FROM events WHERE seq IS NULL AND at < now() - interval '5 s'")]
        return out + ["team %s: %s events up to number %s" % tuple(r) for r in self.house.rows(
            "SELECT team_id, count(*), max(seq) FROM events WHERE seq IS NOT NULL GROUP BY 1 "
            "HAVING count(*) <> max(seq) OR count(DISTINCT seq) <> count(*)")]

    def i7_audit_verifies(self):
        """hutchctl audit verify finds the chain whole"""
        status, said = self.house.ctl("audit", "verify")
        return [said] if status else []

    def i7_audit_dense(self):
        """the audit log is dense"""
        return ["team %s: %s entries, %s to %s, head %s" % tuple(r) for r in self.house.rows(
            "SELECT a.team_id, count(*), min(a.seq), max(a.seq), h.seq FROM audit_logs a JOIN audit_heads h USING (team_id) "
            "GROUP BY a.team_id, h.seq HAVING count(*) <> max(a.seq) OR min(a.seq) <> 1 OR h.seq <> max(a.seq)")]

    def i7_one_entry_per_change(self):
        """one audit entry per acknowledged change"""
        counts = {}
        for ident, what, n in self.house.rows("SELECT resource_id, resource_type || '/' || action, count(*) FROM audit_logs "
                                              "WHERE resource_id IS NOT NULL AND created_at >= '%s' GROUP BY 1, 2" % self.started):
            counts[ident, what] = int(n)
        want = {}
        for i in self.ledger.acked():
            want[i, "sandbox/create"], want[i, "sandbox/destroy"] = 1, int(i in self.ledger.destroyed)
        for i in {i for ids in self.ledger.keys.values() for i in ids}:
            want[i, "api_key/create"], want[i, "api_key/revoke"] = 1, int(i in self.ledger.revoked)
        return ["%s %s: %d, not %d" % (*k, counts.get(k, 0), n) for k, n in want.items() if counts.get(k, 0) != n]

    # ---- I11 ----

    def i11_honest_answers(self):
        """clients saw success, and during outages 503 with Retry-After"""
        return self.ledger.wrong

    def i11_no_bad_sql(self):
        """no SQL error of class 42"""
        return self.house.log_lines(r"^\S+ \S+ \S+ \[\d+\] 42\w{3} ", ["postgres.log"])

    def i11_no_sanitizer(self):
        """no sanitizer report"""
        return self.house.log_lines(SANITIZER)

    def i11_no_crash(self):
        """no process ended by a signal of its own doing"""
        return self.house.log_lines(SIGNALLED, [name + ".log" for name in PARTS])

    # ---- all of them ----

    WITHIN = ("i3_rows_and_machines", "i3_killed_machine", "i1_destroys_happen", "i6_jobs_end", "i6_events_numbered",
              "i6_timers_tick")
    THEN = ("i1_capsules_readable", "i1_keys_readable", "i2_replays", "i2_one_key_one_effect")
    EMPTY = ("i1_destroys_happen", "i3_rows_and_machines", "i4_nothing_reserved", "i4_nothing_left", "i6_jobs_end")
    LAST = ("i5_never_twice", "i6_events_once", "i7_audit_verifies", "i7_audit_dense", "i7_one_entry_per_change",
            "i11_honest_answers", "i11_no_bad_sql", "i11_no_sanitizer", "i11_no_crash")

    def settle(self, names, seconds):
        """All of these, within so many seconds together: what they still say."""
        said = {}

        def look():
            for name in names:
                try:
                    said[name] = getattr(self, name)()
                except (RuntimeError, KeyError, TypeError) as e:
                    said[name] = ["not to be found out: %s" % e]
            return any(said.values())

        until(seconds, look, 1)
        return said
