#!/usr/bin/env python3
"""chaos.py - kill -9 of every part in turn under a loop of creates, commands and destroys.

What a part's parent does not replace is started again as an operator would. At the end, at most
30 s after the last part is back, the promises I1-I7 and I11 are checked (promises.py).

usage: chaos.py [PART...]      with the environment of tests/lib/instance, or without it: then an
                               instance of its own in HUTCH_CHAOS_RUN (/tmp/hutch-chaos), forgotten
                               at the end. PARTs: only these are killed (chaos.py --list).
HUTCH_CHAOS_ROUNDS: how often (1); from the second round on in a random order, of HUTCH_CHAOS_SEED.
"""
import os
import random
import shutil
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
from clients import CapsuleClient, KeyClient, Ledger
from house import PARTS, TOP, House, kill, until
from promises import SETTLE, Promises

# Those whose claimed jobs wait for a lease (30 s) come first, so that the time of settling is not theirs.
VICTIMS = ("ops process", "ops", "worker process", "worker", "postgres", "agent", "launcher", "machine",
           "agent, then a machine", "gateway process", "gateway", "relay", "redis", "api process", "api", "lighttpd")
ROUNDS = int(os.environ.get("HUTCH_CHAOS_ROUNDS", "1"))
SEED = int(os.environ.get("HUTCH_CHAOS_SEED", str(os.getpid())))
TIME = 170 * ROUNDS  # seconds for all kills; what does not fit is skipped
AWAY, CALM = 1.2, 2.5  # seconds that a part is away, and that pass before the next goes
GRACE = 15  # seconds after a part is back in which its clients may still hear of the outage
counts = {"ok": 0, "not ok": 0, "skip": 0}


def say(verdict, name, why=""):
    counts[verdict] += 1
    print("%s chaos: %s%s" % (verdict, name, ": " + str(why)[:1500] if why else ""), flush=True)


def tell(text):
    print("# %5.1f s %s" % (time.monotonic() - BEGIN, text), flush=True)


BEGIN = time.monotonic()


class Witness(threading.Thread):
    """Looks on: which machine was up for which capsule, and whether ever two at once (I5)."""

    def __init__(self, house):
        super().__init__(daemon=True)
        self.house, self.done = house, threading.Event()
        self.ups, self.machines, self.twice = {}, {}, []

    def doubles(self):
        alive = self.house.machines()
        for r in self.house.journal():
            if "vm" in r and r.get("id"):
                self.machines.setdefault(r["id"], set()).add(r["vm"])
                if r["op"] == "up":
                    self.ups.setdefault((r["id"], r["epoch"]), set()).add(r["vm"])
        two = {i: {vm: alive[vm] for vm in vms if vm in alive} for i, vms in self.machines.items()}
        return {i: vms for i, vms in two.items() if sum(map(len, vms.values())) > 1}

    def run(self):
        while not self.done.wait(1):
            first = self.doubles()
            if first:
                for _ in range(4):  # a machine that is being ended is not one that runs; to end takes it a while
                    time.sleep(0.5)
                    now = self.doubles()
                    first = {i: two for i, two in first.items() if now.get(i) == two}
                self.twice += ["%s: %s" % (i, two) for i, two in first.items()]


class Shaker:
    def __init__(self, house, ledger, clients, elder):
        self.house, self.ledger, self.clients, self.elder = house, ledger, clients, elder

    def pids(self, victim):
        """Pids of what a name means; the first of a random order is killed."""
        h = self.house
        if victim == "launcher":
            found = h.children("agent", "hutch-priv")
        elif victim == "relay":
            found = h.children("worker", "relay")
        elif victim == "worker process":
            found = h.children("worker", "capsule") or h.children("worker")
        elif victim.endswith(" process"):
            found = h.children(victim[:-8])
        else:
            found = [h.pid(victim)] if h.pid(victim) else []
        return random.sample(found, len(found))

    def machine(self):
        """A kept capsule's QEMU, or any but the elder's."""
        kept = [i for c in self.clients for i in getattr(c, "kept", [])]
        for capsule in kept + sorted(self.ledger.acked() - self.ledger.destroyed - self.ledger.murdered - {self.elder}):
            pid = self.house.machine_of(capsule)
            if pid:
                return capsule, pid
        return None, None

    def machine_ended(self, capsule, pid):
        """Kills a QEMU; its capsule must say so."""
        self.ledger.murdered.add(capsule)
        kill(pid)
        return until(60, lambda: "" if self.ledger.state(capsule) in ("error", "stopping", "stopped")
                     else "%s is still %s" % (capsule, self.ledger.state(capsule)))

    def shake(self, victim):
        """Kills it, waits for its return; what went wrong, or nothing."""
        before = {name: self.house.pid(name) for name in PARTS}
        since = time.monotonic()
        window = [since, since + 120]
        if victim == "machine":
            until(30, lambda: "" if self.machine()[1] else "between two capsules")
            capsule, pid = self.machine()
            return self.machine_ended(capsule, pid) if pid else None
        victim, *with_machine = victim.split(", then a ")
        pids = self.pids(victim)
        if not pids:
            return None
        self.ledger.outages.append(window)
        kill(pids[0])
        if with_machine:
            capsule, pid = self.machine()
            if pid:
                self.ledger.murdered.add(capsule)
                kill(pid)
        time.sleep(AWAY)
        said = self.back(victim, pids, before)
        window[1] = time.monotonic() + GRACE
        return said

    def back(self, victim, pids, before):
        name = {"launcher": "agent", "relay": "worker"}.get(victim, victim.removesuffix(" process"))
        if victim in PARTS or victim == "launcher":
            if victim == "launcher":
                until(60, lambda: self.house.pid("agent"))  # it ends by itself: one without the other is useless
            said = self.house.start(name)
        else:
            said = until(90, lambda: "" if pids[0] not in self.pids(victim) and len(self.pids(victim)) >= len(pids)
                         else "%s has %d processes, had %d" % (name, len(self.pids(victim)), len(pids)))
        others = [n for n in PARTS if n != name and self.house.pid(n) != before[n]]
        fell = "" if not others else "%s fell with it" % ", ".join(others)
        for n in others:
            self.house.start(n)
        return said or fell


def prepare(ledger, house):
    """The pool is warm and a capsule lives that must still live at the end: its id and its boot."""
    key = "chaos-%d-elder" % os.getpid()
    busy = [time.monotonic(), time.monotonic() + 180]  # what others have just left may not be free yet: 503
    ledger.outages.append(busy)
    until(180, lambda: "" if ledger.create(key) else "no capsule")
    busy[1] = time.monotonic()
    if not ledger.acked():
        return None, ""
    elder = next(iter(ledger.acked()))
    boot = []

    def answers():
        a = ledger.exec(elder, ["cat", "/proc/sys/kernel/random/boot_id"])
        boot[:] = [a.get("stdout")] if a.status == 200 else []
        return "" if boot else "no command runs: %d" % a.status

    until(120, answers)
    until(180, lambda: "" if any(p["ready"] for p in (house.agent("/info") or {"pools": {}})["pools"].values()) else "no clone")
    return (elder, boot[0]) if boot else (None, "")


def in_rounds(victims):
    chance, out = random.Random(SEED), list(victims)
    for _ in range(ROUNDS - 1):
        out += chance.sample(victims, len(victims))
    if ROUNDS > 1:
        tell("HUTCH_CHAOS_SEED=%d" % SEED)
    return out


def kill_in_turn(shaker, victims):
    deadline = time.monotonic() + TIME
    for victim in victims:
        time.sleep(CALM)
        if time.monotonic() > deadline:
            say("skip", "%s killed" % victim, "%d s were over" % TIME)
            continue
        begin = time.monotonic()
        tell("kill -9 %s" % victim)
        said = shaker.shake(victim)
        if said is None:
            say("skip", "%s killed" % victim, "there was none")
        else:
            say("not ok" if said else "ok", "%s killed, all is back%s"
                % (victim, "" if said else " (%.1f s)" % (time.monotonic() - begin)), said)


def report(promises, said):
    for name, wrong in said.items():
        text = "%s %s" % (name[:name.index("_")].upper(), getattr(promises, name).__doc__)
        say("not ok" if wrong else "ok", text, "; ".join(wrong[:5]) + (" and %d more" % (len(wrong) - 5) if len(wrong) > 5 else ""))


def judge(promises, ledger, elder, boot):
    begin = time.monotonic()
    said = promises.settle(Promises.WITHIN, SETTLE)
    tell("settled after %.1f s" % (time.monotonic() - begin))
    report(promises, said)
    a = ledger.exec(elder, ["cat", "/proc/sys/kernel/random/boot_id"])
    say("ok" if a.get("stdout") == boot else "not ok", "a capsule older than all kills runs on",
        "" if a.get("stdout") == boot else "%d %s" % (a.status, a.json))
    report(promises, promises.settle(Promises.THEN, 0))
    left = sorted(ledger.acked() - ledger.destroyed)
    for capsule in left:
        ledger.destroy(capsule)
    tell("destroyed the %d that were left" % len(left))
    report(promises, promises.settle(Promises.EMPTY, SETTLE))
    report(promises, promises.settle(Promises.LAST, 0))


def run(env, victims):
    house = House(env)
    house.mark_logs()
    try:
        shake_and_judge(env, house, victims)
    finally:
        house.unmark_logs()


def shake_and_judge(env, house, victims):
    ledger, started = Ledger(env), house.sql("SELECT now()")
    elder, boot = prepare(ledger, house)
    if not elder:
        say("not ok", "a first capsule", ledger.wrong)
        return
    tell("the elder is %s" % elder)
    keys = KeyClient(ledger, 9, env)
    clients = [CapsuleClient(ledger, n) for n in (1, 2)] + [keys]
    witness = Witness(house)
    for thread in [witness] + clients:
        thread.start()
    kill_in_turn(Shaker(house, ledger, clients, elder), in_rounds(victims))
    time.sleep(GRACE)
    for c in clients:
        c.finish(40)
    for c in clients:
        c.join(240)
    tell("clients ended: %d capsules, %d commands, %d destroys, %d API keys; %d refused, %d cut off"
         % (len(ledger.capsules), ledger.commands, len(ledger.destroyed), len(ledger.keys), ledger.refused, ledger.cut))
    busy = ledger.commands >= 5 and len(ledger.destroyed) >= 5 and len(ledger.keys) >= 5
    say("ok" if busy else "not ok", "clients got work done", "" if busy else "see the line above")
    judge(Promises(house, ledger, witness, keys, started), ledger, elder, boot)
    witness.done.set()
    for key in {i for ids in ledger.keys.values() for i in ids} - ledger.revoked:
        keys.revoke(key)


def instance_env(instance, where):
    out = subprocess.run(["bash", "-c", ". <(\"$1\" env \"$2\") && env -0", "env", instance, where], stdout=subprocess.PIPE,
                         check=True).stdout.decode()
    return dict(line.split("=", 1) for line in out.split("\0") if "=" in line)


def main():
    victims = sys.argv[1:]
    if victims == ["--list"]:
        print("\n".join(VICTIMS))
        return 0
    if not set(victims) <= set(VICTIMS):
        sys.stderr.write(__doc__)
        return 2
    instance, own = TOP + "/tests/lib/instance", "HUTCH_RUN" not in os.environ
    where = os.environ.get("HUTCH_RUN") or os.environ.get("HUTCH_CHAOS_RUN", "/tmp/hutch-chaos")
    try:
        if own:
            subprocess.run([instance, "start", where], check=True, stdout=subprocess.DEVNULL)
        run(instance_env(instance, where), victims or VICTIMS)
    finally:
        if own and not os.environ.get("KEEP"):
            subprocess.run([instance, "stop", where], check=False, stdout=subprocess.DEVNULL)
            shutil.rmtree(where, ignore_errors=True)
    print("%d passed, %d failed, %d skipped" % (counts["ok"], counts["not ok"], counts["skip"]))
    return 1 if counts["not ok"] else 0


if __name__ == "__main__":
    sys.exit(main())
