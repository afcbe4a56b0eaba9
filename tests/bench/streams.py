#!/usr/bin/env python3
"""streams.py - WebSockets: memory of idle ones, echo of busy terminals beside slow readers, a command's round trip, a resize.

On a running instance (tests/lib/instance env DIR): the gateway's settings are changed while it measures, and put back.
"""
import argparse
import base64
import glob
import json
import os
import re
import resource
import selectors
import socket
import statistics
import subprocess
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "http"))
from sockets import Closed, Socket, gateway, setting  # noqa: E402

URL = os.environ["HUTCH_URL"]
KEY = {"X-API-Key": os.environ["HUTCH_API_KEY"]}


def call(method, path, body=None):
    req = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode(),
                                 {**KEY, "Content-Type": "application/json"}, method=method)
    with urllib.request.urlopen(req, timeout=60) as a:
        data = a.read()
        return json.loads(data) if data else None


def family(pid):
    """A process and its children."""
    found = [pid]
    for path in glob.glob("/proc/[0-9]*/stat"):
        try:
            with open(path) as f:
                fields = f.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(path.split("/")[2]))
    return found


def pss(pids):
    """Bytes."""
    total = 0
    for pid in pids:
        try:
            with open("/proc/%d/smaps_rollup" % pid) as f:
                total += int(re.search(r"(?m)^Pss: +(\d+)", f.read()).group(1)) * 1024
        except OSError:
            pass
    return total


def part(name):
    with open(os.path.join(os.environ["HUTCH_RUN"], "pid", name)) as f:
        return family(int(f.read().split()[0]))


def memory():
    return pss(part("gateway")), pss(part("agent")[:1]), pss(part("lighttpd"))


def spent(pids):
    """Seconds on a CPU."""
    ticks = 0
    for pid in pids:
        try:
            with open("/proc/%d/stat" % pid) as f:
                ticks += sum(map(int, f.read().rsplit(")", 1)[1].split()[11:13]))
        except OSError:
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def started(base, path="/exec/stream", **message):
    s = Socket(URL, base + path, KEY)
    if s.status != 101:
        raise SystemExit("%d: %s" % (s.status, s.body))
    if message:
        s.send(**message)
        s.recv(60)
    return s


def per(n, before, after, what):
    kib = [(b - a) / 1024 / n for a, b in zip(before, after)]
    print("%-44s gateway %5.1f KiB, agent %5.1f KiB, lighttpd %5.1f KiB each" % ("%d %s" % (n, what), *kib), flush=True)


def idle(base, n, attached):
    for s in [started(base) for _ in range(20)]:  # what the first ones cost is not theirs
        s.close()
    call("POST", base + "/exec", {"cmd": "sleep", "args": ["600"], "background": True, "tag": "idle"})
    before = memory()
    ones = [started(base, type="connect", tag="idle") for _ in range(attached)]
    per(attached, before, memory(), "idle streams of a process")
    for s in ones:
        s.cut()
    time.sleep(1)
    # what those left is used again: the next figure is a lower bound unless it is far more
    before = memory()
    ones = [started(base) for _ in range(n)]
    per(n, before, memory(), "idle WebSockets, nothing begun")
    for s in ones:
        s.cut()
    time.sleep(2)


BUSY = "(while sleep 1; do echo busy; done) & exec cat"


def native(base, program):
    """From now on the capsule's guest agent is one on this machine, not the one in the emulated machine: what is measured then is
    gateway and agents. The host agent meets it when the capsule comes back from a pause."""
    with open(os.environ["HUTCH_RUN"] + "/agent/journal", errors="replace") as f:
        rows = [json.loads(line[line.index("{"):]) for line in f if base.split("/")[-1] in line]
    at = "%s/agent/vm/%s/g" % (os.environ["HUTCH_RUN"], next(r["vm"] for r in rows if r.get("vm")))
    os.rename(at, at + ".real")
    process = subprocess.Popen([program, "--listen-unix", at], stderr=subprocess.DEVNULL)
    while not os.path.exists(at):
        time.sleep(0.05)
    os.chmod(at, 0o777)
    token = call("POST", "/sandboxes/%s/connect" % base.split("/")[-1][3:], {"timeout": 3600})["envdAccessToken"]
    init = json.dumps({"epoch": 1, "accessToken": token, "defaultUser": "root", "defaultWorkdir": "/"})
    subprocess.run(["curl", "-sf", "--http2-prior-knowledge", "--unix-socket", at, "-d", init, "http://guest/init"], check=True)
    for what, state in (("pause", "paused"), ("resume", "running")):
        call("POST", base + "/" + what)
        end = time.time() + 30
        while call("GET", base)["status"] != state:
            if time.time() > end:
                process.kill()
                raise SystemExit("the capsule is not " + state)
            time.sleep(0.1)
    return process


def echo(bases, terminals, slow, seconds, where, more=()):
    """A key each, and its echo, in turn; beside them some who started floods and read nothing. Every terminal prints, too."""
    floods = [started(bases[i % len(bases)], type="start", cmd="yes") for i in range(slow)]
    ones = [started(bases[i % len(bases)], "/pty", type="start", cmd="sh", args=["-c", BUSY]) for i in range(terminals)]
    parts = {name: part(name)[:1] if name == "agent" else part(name) for name in ("lighttpd", "gateway", "agent")}
    parts["guest agent"] = list(more)
    before = {name: spent(pids) for name, pids in parts.items()}
    sel, took, sent = selectors.DefaultSelector(), [], {}
    for i, s in enumerate(ones):
        s.s.settimeout(0)
        sel.register(s.s, selectors.EVENT_READ, i)
    gap = max(0.002, 0.2 / terminals)  # each types five times a second at most
    end, turn = time.time() + seconds, 0
    while time.time() < end:
        i, turn = turn % terminals, turn + 1
        if i not in sent:
            sent[i] = time.perf_counter()
            ones[i].s.settimeout(5)
            ones[i].send(type="input", data=base64.b64encode(b"x").decode())
            ones[i].s.settimeout(0)
        wait = time.time() + gap
        while True:
            for key, _ in sel.select(max(0, wait - time.time())):
                s = ones[key.data]
                try:
                    while True:
                        m = s.recv(0.5) if len(s.data) > 1 else None
                        if m is None:
                            s.data += s.s.recv(65536)
                            continue
                        if m["type"] == "output" and key.data in sent and b"x" in base64.b64decode(m["data"]):
                            took.append(time.perf_counter() - sent.pop(key.data))
                except (BlockingIOError, TimeoutError):
                    pass
            if time.time() >= wait:
                break
    took.sort()
    if took:
        print("%s: echo, %d terminals that print, in %d capsules, beside %d who read nothing: p50 %.1f ms, p99 %.1f ms, n = %d" % (
              where, terminals, len(bases), slow, took[len(took) // 2] * 1e3, took[int(len(took) * 0.99)] * 1e3, len(took)))
        print("    CPU of an echo and the output beside it, us: " + ", ".join(
            "%s %.0f" % (name, (spent(pids) - before[name]) / len(took) * 1e6) for name, pids in parts.items() if pids), flush=True)
    for s in floods + ones:
        try:
            s.s.settimeout(2)
            s.send(type="kill")
        except OSError:
            pass
        s.cut()


def emulated(base, o):
    more = [call("POST", "/v1/capsules", {"template": "minimal"})["id"] for _ in range(o.capsules - 1)]
    try:
        echo([base] + ["/v1/capsules/" + m for m in more], o.terminals, o.slow, o.seconds, "emulated")
    finally:
        for m in more:
            call("DELETE", "/v1/capsules/" + m)


def beside(base, o):
    process = native(base, o.native)
    try:
        echo([base], o.terminals, o.slow, o.seconds, "native guest agent", [process.pid])
    finally:
        process.kill()


def trip(base, n):
    own = "import os,time\nt=[]\nfor i in range(%d):\n a=time.perf_counter(); p=os.posix_spawn('/bin/true',['true'],{}); os.waitpid(p,0); t.append(time.perf_counter()-a)\nt.sort(); print(t[len(t)//2]*1e3)" % n
    inside = float(call("POST", base + "/exec", {"cmd": "python3", "args": ["-c", own]})["stdout"])
    took = []
    for _ in range(n):
        s = Socket(URL, base + "/exec/stream", KEY)
        s.s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        began = time.perf_counter()
        s.send(type="start", cmd="/bin/true")
        try:
            while s.recv(30)["type"] != "exit":
                pass
        except Closed:
            pass
        took.append((time.perf_counter() - began) * 1e3)
        s.cut()
    print("%-44s %.1f ms (median), the guest's own fork, exec, wait %.1f ms" % ("start … exit of true on an open socket", statistics.median(took), inside),
          flush=True)


# Tells each size it is given, without a fork.
TELLS = """import os, signal, time
def tell(*_):
    c, r = os.get_terminal_size(0)
    os.write(1, b"<%d %d>" % (r, c))
signal.signal(signal.SIGWINCH, tell)
os.write(1, b"<ready>")
while True:
    time.sleep(1)
"""


def resize(base, n):
    """From the resize to the program's word of its new size: on a quiet terminal, and behind input that nobody takes."""
    for flood in (False, True):
        s = started(base, "/pty")
        s.send(type="start", cmd="python3", args=["-c", TELLS])
        seen, took = b"", []

        def until(mark):
            nonlocal seen
            while mark not in seen:
                m = s.recv(30)
                seen += base64.b64decode(m["data"]) if m["type"] == "output" else b""
        until(b"<ready>")
        if flood:  # more than a terminal takes, less than stops the socket
            data = base64.b64encode(b"x" * 1000).decode()
            for _ in range(60):
                s.send(type="input", data=data)
            time.sleep(0.5)
        for i in range(n):
            began = time.perf_counter()
            s.send(type="resize", cols=100 + i, rows=30)
            until(b"<30 %d>" % (100 + i))
            took.append((time.perf_counter() - began) * 1e3)
        took.sort()
        print("%-44s %.1f ms (median), slowest of %d %.1f ms" % ("resize, seen by the program" + (", input waits" if flood else ""),
              statistics.median(took), n, took[-1]), flush=True)
        s.send(type="kill")
        s.cut()


def main():
    a = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    a.add_argument("--idle", type=int, default=5000)
    a.add_argument("--attached", type=int, default=400, help="streams of one process; a guest takes 512")
    a.add_argument("--terminals", type=int, default=200, help="emulated: a tenth of it is plenty")
    a.add_argument("--slow", type=int, default=20)
    a.add_argument("--capsules", type=int, default=2, help="emulated ones the terminals are spread over")
    a.add_argument("--native", metavar="PROGRAM", help="hutch-guest: a guest agent beside the machine, for what gateway and agent do")
    a.add_argument("--seconds", type=float, default=20)
    a.add_argument("--trips", type=int, default=50)
    a.add_argument("--only", help="trip, resize, echo, idle or native")
    o = a.parse_args()
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(20000, o.idle + 1000),) * 2)
    c = call("POST", "/v1/capsules", {"template": "minimal"})["id"]
    base = "/v1/capsules/" + c
    while call("GET", base)["status"] == "starting":  # the first of a template is booted
        time.sleep(0.5)
    try:
        setting("capsule_streams", 100000)
        setting("credential_streams", 100000)
        assert gateway()
        parts = {"trip": lambda: trip(base, o.trips), "resize": lambda: resize(base, o.trips),
                 "echo": lambda: emulated(base, o), "idle": lambda: idle(base, o.idle, o.attached)}
        if o.native:  # the last: the machine's own guest agent is out of reach then
            parts["native"] = lambda: beside(base, o)
        for name, part_of in parts.items():
            if o.only in (None, name):
                part_of()
    finally:
        setting("capsule_streams", None)
        setting("credential_streams", None)
        call("DELETE", base)


if __name__ == "__main__":
    main()
