#!/usr/bin/env python3
"""kill.py - every part killed in turn (kill -9) under a loop of creates, commands and destroys.

A part that nobody restarts is brought back by quickstart, as an operator would. At the end the
promises I1-I7 of ARCHITECTURE.md are checked against what the clients were told.
usage: kill.py, with the environment of tests/lib/instance. HUTCH_CHAOS_ROUNDS: how often (1).
"""
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

TOP = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
URL = urlsplit(os.environ["HUTCH_URL"])
RUN, BUILD = os.environ["HUTCH_RUN"], os.environ["HUTCH_BUILD"]
KEY = {"X-API-Key": os.environ["HUTCH_API_KEY"], "Content-Type": "application/json"}
ROUNDS = int(os.environ.get("HUTCH_CHAOS_ROUNDS", "1"))
# What is killed: a part of the instance (its first process), a child of one, or a virtual machine.
VICTIMS = ["child of api", "api", "child of ops", "ops", "child of worker", "worker", "gateway", "machine", "agent",
           "redis", "postgres", "lighttpd"]
SANE = (0, 429, 500, 502, 503, 504)  # what a client may see while something is away; 0: no answer


def call(method, path, body=None, headers=None, timeout=70):
    """Status and body; status 0 when there was no answer."""
    try:
        c = http.client.HTTPConnection(URL.hostname, URL.port or 80, timeout=timeout)
        c.request(method, path, json.dumps(body) if body is not None else None, {**KEY, **(headers or {})})
        r = c.getresponse()
        data = r.read()
        c.close()
        return r.status, json.loads(data) if data.startswith((b"{", b"[")) else None
    except (OSError, http.client.HTTPException, ValueError):
        return 0, None


def report(name, good, why=""):
    print("ok chaos: " + name if good else "not ok chaos: %s: %s" % (name, str(why)[:400]), flush=True)


class Client(threading.Thread):
    """Creates, runs a command, destroys, until told to stop; remembers what was acknowledged."""

    def __init__(self, number):
        super().__init__(daemon=True)
        self.number, self.stop = number, threading.Event()
        self.made, self.destroyed, self.wrong, self.commands = {}, set(), [], 0
        self.start()

    def run(self):
        n = 0
        while not self.stop.is_set():
            n += 1
            key = "chaos-%d-%d-%d" % (os.getpid(), self.number, n)
            status, said = call("POST", "/v1/capsules", {"template": "minimal", "metadata": {"chaos": key}},
                                {"Idempotency-Key": key})
            if status != 201:
                self.odd("create", status, said, (409,))
                time.sleep(0.3)
                continue
            self.made[key] = said["id"]
            self.use(said["id"], key)
            self.destroy(said["id"])

    def use(self, capsule, text):
        for _ in range(30):
            status, said = call("POST", "/v1/capsules/%s/exec" % capsule, {"cmd": "echo", "args": [text], "timeout_sec": 20})
            if status == 200:
                self.commands += 1
                if said.get("stdout") != text + "\n" and said.get("exit_code") == 0:
                    self.wrong.append("exec said %s" % json.dumps(said)[:200])
                return
            self.odd("exec", status, said, (409,))
            if self.stop.is_set() or self.is_lost(capsule):
                return
            time.sleep(0.5)

    @staticmethod
    def is_lost(capsule):
        _, said = call("GET", "/v1/capsules/" + capsule)
        return bool(said) and said.get("state") in ("error", "stopped")

    def destroy(self, capsule):
        for _ in range(60):
            status, said = call("DELETE", "/v1/capsules/" + capsule)
            if status == 204:
                self.destroyed.add(capsule)
                return
            self.odd("destroy", status, said, (409,))
            time.sleep(0.5)

    def odd(self, what, status, said, also):
        if status not in SANE + also:
            self.wrong.append("%s: %d %s" % (what, status, json.dumps(said)[:200]))


def part(name):
    """The pid of a part's first process, or None."""
    try:
        with open("%s/pid/%s" % (RUN, name)) as f:
            pid = int(f.read().split()[0])
        os.kill(pid, 0)
        return pid
    except (OSError, ValueError, IndexError):
        return None


def pgrep(*args):
    out = subprocess.run(["pgrep", *args], stdout=subprocess.PIPE, text=True, check=False).stdout
    return [int(p) for p in out.split()]


def machines():
    """Pid of each virtual machine of this instance, by the capsule's id; the pool's clones have none."""
    with open(RUN + "/agent/instance") as f:
        mark = "hutch-%s-" % f.read().strip()
    found = {}
    for pid in pgrep("-f", "--", "-name " + mark):
        try:
            with open("/proc/%d/cmdline" % pid, "rb") as f:
                args = f.read().decode("latin-1").split("\0")
        except OSError:
            continue
        found.setdefault(args[args.index("-name") + 1][len(mark):].split(",")[0], []).append(pid)
    return found


def victim(name):
    if name == "machine":
        pids = [p for ps in machines().values() for p in ps]
    elif name.startswith("child of "):
        parent = part(name[9:])
        pids = pgrep("-P", str(parent)) if parent else []
    else:
        pids = [part(name)]
    return random.choice(pids) if pids and pids[0] else None


def restore():
    return subprocess.run([TOP + "/quickstart", "--run", RUN, "--build", BUILD, "--dev", "--no-demo"],
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=240, check=False)


def kill_all_in_turn():
    for name in VICTIMS * ROUNDS:
        time.sleep(2)
        pid = victim(name)
        if not pid:
            print("skip chaos: %s: there was none to kill" % name, flush=True)
            continue
        os.kill(pid, signal.SIGKILL)
        time.sleep(2)
        back = restore()
        well = back.returncode == 0 and call("GET", "/v1/health")[0] == 200
        report("%s killed, the instance is back" % name, well, back.stdout[-400:])


def sql(text):
    """One value from the database, as the superuser of the private cluster."""
    out = subprocess.run(["psql", "-qAtX", os.environ["HUTCH_TEST_DB"], "-c", text], stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT, text=True, check=False)
    return out.stdout.strip()


def until(seconds, check):
    """What check says when it is content (empty), or at the end of the time."""
    deadline = time.time() + seconds
    while (said := check()) and time.time() < deadline:
        time.sleep(1)
    return said


def unread(clients):
    return [i for c in clients for i in c.made.values() if call("GET", "/v1/capsules/" + i)[0] != 200]


def doubled(clients):
    bad = []
    for c in clients:
        for key, capsule in list(c.made.items())[-20:]:
            status, said = call("POST", "/v1/capsules", {"template": "minimal", "metadata": {"chaos": key}},
                                {"Idempotency-Key": key})
            if status != 201 or said["id"] != capsule:
                bad.append((key, capsule, status, said and said.get("id")))
    twice = sql("SELECT metadata->>'chaos' FROM capsules WHERE metadata ? 'chaos' GROUP BY 1 HAVING count(*) > 1")
    return bad + ([twice] if twice else [])


def disagreement():
    """Running rows without a machine, machines without a row."""
    status, rows = call("GET", "/v1/capsules?limit=200")
    if status != 200:
        return "list: %d" % status
    want = {r["id"] for r in rows if r["state"] == "running"}
    have = agent_capsules()
    return ("rows without a machine: %s; machines without a row: %s" % (want - have, have - want)) if want != have else ""


def agent_capsules():
    out = subprocess.run(["curl", "-fsS", "--http2-prior-knowledge", "--unix-socket", os.environ["HUTCH_SOCK"] + "/agent.sock",
                          "http://agent/agent/v1/capsules"], stdout=subprocess.PIPE, text=True, check=False).stdout
    return {c["id"] for c in json.loads(out or '{"capsules":[]}')["capsules"] if c["state"] == "running"}


def unfinished_jobs():
    return sql("SELECT string_agg(kind || ' ' || state || ' ' || coalesce(error_text, ''), '; ') FROM jobs "
               "WHERE state IN ('queued','running') AND run_at < now() - interval '20 s'")


def check(clients):
    made = sum(len(c.made) for c in clients)
    destroyed = set().union(*(c.destroyed for c in clients))
    report("work went on: %d created, %d commands, %d destroyed"
           % (made, sum(c.commands for c in clients), len(destroyed)), made > 0 and destroyed)
    wrong = [w for c in clients for w in c.wrong]
    report("I11 clients saw nothing but honest errors", not wrong, wrong[:5])
    lost = unread(clients)
    report("I1 every acknowledged capsule is readable", not lost, lost[:5])
    bad = doubled(clients)
    report("I2 one key, one capsule", not bad, bad[:5])
    for c in clients:  # what a client could not destroy while things were away
        for capsule in set(c.made.values()) - c.destroyed:
            call("DELETE", "/v1/capsules/" + capsule)
    report("I3 rows and machines agree within 60 s", not (said := until(60, disagreement)), said)
    report("I4 no machine is left of a capsule that is gone",
           not (said := until(30, lambda: [n for n in machines() if "cl-" + n in destroyed or n in destroyed])), said)
    report("I5 no capsule has two machines", not [n for n, p in machines().items() if len(p) > 1], machines())
    report("I6 every job ends", not (said := until(60, unfinished_jobs)), said)
    gaps = sql("SELECT team_id FROM audit_logs GROUP BY team_id HAVING count(*) <> max(seq) OR min(seq) <> 1")
    report("I7 the audit log has no gap", not gaps, gaps)
    broken = sql("SELECT count(*) FROM audit_logs a JOIN audit_logs b ON b.team_id = a.team_id AND b.seq = a.seq + 1 "
                 "WHERE b.prev_hash <> a.hash")
    report("I7 the audit log is chained", broken == "0", broken)
    twice = sql("SELECT resource_id FROM audit_logs WHERE resource_type = 'sandbox' AND action IN ('create','destroy') "
                "GROUP BY resource_id, action HAVING count(*) > 1")
    report("I7 one entry per create and destroy", not twice, twice)


def main():
    clients = [Client(i) for i in range(2)]
    try:
        kill_all_in_turn()
    finally:
        for c in clients:
            c.stop.set()
        for c in clients:
            c.join(120)
    check(clients)
    return 0


if __name__ == "__main__":
    sys.exit(main())
