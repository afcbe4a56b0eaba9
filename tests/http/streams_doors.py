#!/usr/bin/env python3
"""streams_doors.py - who may open a stream and for how long: tickets, logins, roles, limits, sleep, restarts, terminals."""
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import crew  # noqa: E402
from crew import check, sql, uuid_of  # noqa: E402
from sockets import Closed, Socket, gateway, processes, setting  # noqa: E402

URL = crew.URL
ONLY = sys.argv[1:]


def ticket(who, capsule, purpose, headers=None, **more):
    a = crew.call("POST", "/v1/auth/tickets", {"purpose": purpose, **({"capsule": capsule} if capsule else {}), **more},
                  {"Authorization": "Bearer " + who.token, **(headers or {})})
    assert a.status == 201, a
    return a.json["ticket"]


def open_with(path, tick, headers=None):
    return Socket(URL, path + ("&" if "?" in path else "?") + "ticket=" + tick, headers)


def code_after(s, seconds):
    """The close code that comes within so many seconds, else None."""
    try:
        s.all(seconds)
    except TimeoutError:
        return None
    return s.code


def bearer(who):
    return {"Authorization": "Bearer " + who.token}


def tickets(p, c, other):
    base = "/v1/capsules/" + c
    t = ticket(p, c, "exec")
    s = open_with(base + "/exec/stream", t)
    check("a ticket opens", s.status == 101, s.status)
    s.send(type="start", cmd="true")
    check("and works", s.all()[-1].get("exit_code") == 0)
    check("a ticket twice: 401", open_with(base + "/exec/stream", t).status == 401)
    t = ticket(p, c, "exec")
    sql("UPDATE stream_tickets SET expires_at = now() - interval '1 second'")
    check("after 31 s: 401", open_with(base + "/exec/stream", t).status == 401)
    check("of another capsule: 401", open_with("/v1/capsules/" + other + "/exec/stream", ticket(p, c, "exec")).status == 401)
    t = ticket(p, c, "pty")
    check("of another purpose: 401", open_with(base + "/exec/stream", t).status == 401)
    check("a wrong use burns it", open_with(base + "/pty", t).status == 401)
    check("a ticket is no credential elsewhere", crew.call("GET", base + "/processes?ticket=" + ticket(p, c, "exec")).status == 401)
    t = ticket(p, c, "exec", {"Origin": URL})
    check("a page's ticket without its origin: 403", open_with(base + "/exec/stream", t).status == 403)
    s = open_with(base + "/exec/stream", ticket(p, c, "exec", {"Origin": URL}), {"Origin": URL})
    check("with it: 101", s.status == 101, s.status)
    s.close()
    for body, status in (({"purpose": "display", "capsule": c}, 400), ({"purpose": "exec"}, 400), ({"purpose": "port", "capsule": c}, 400),
                         ({"purpose": "exec", "capsule": c, "port": 80}, 400), ({"purpose": "events", "capsule": c}, 400),
                         ({"purpose": "exec", "capsule": "cl-0000000000000000000000000"}, 404)):
        check("refused: %s" % json.dumps(body), p("POST", "/v1/auth/tickets", body).status == status)
    check("without a credential: 401", crew.call("POST", "/v1/auth/tickets", {"purpose": "exec", "capsule": c}).status == 401)
    a = crew.with_key(os.environ["HUTCH_API_KEY"], "POST", "/v1/auth/tickets", {"purpose": "exec", "capsule": c})
    check("a capsule of another team: 404", a.status == 404, a)


def logins(p, c):
    base = "/v1/capsules/" + c
    s = Socket(URL, base + "/pty")
    s.send(type="auth", token=p.token)
    s.send(type="start", cmd="/bin/sh")
    check("the first message says who asks", s.recv()["type"] == "started")
    t = ticket(p, c, "exec")
    began = time.time()
    check("logout", p("POST", "/v1/auth/logout", {}).status == 204)
    check("the token is 401 at once", p("GET", "/v1/me").status == 401)
    check("its ticket is 401", open_with(base + "/exec/stream", t).status == 401)
    check("its tickets are gone", sql("SELECT count(*) FROM stream_tickets t JOIN login_sessions s ON s.id = t.session_id WHERE s.revoked_at IS NOT NULL") == "0")
    check("an open terminal closes within 5 s: 4401", code_after(s, 60) == 4401 and time.time() - began < 40, (s.code, time.time() - began))
    p.login()


def roles(p, c):
    guest = crew.Person("guest").into(p, "member")
    s = Socket(URL, "/v1/capsules/" + c + "/exec/stream", bearer(guest))
    s.send(type="start", cmd="sleep", args=["60"])
    check("a member may", s.recv()["type"] == "start")
    began = time.time()
    a = p("PATCH", f"/v1/teams/{p.team}/members/{guest.id}", {"role": "viewer"})
    check("he becomes a viewer: 4403 within 5 s", a.status in (200, 204) and code_after(s, 60) == 4403 and time.time() - began < 40, (a, s.code))
    check("and opens no more: 403", Socket(URL, "/v1/capsules/" + c + "/exec/stream", bearer(guest)).status == 403)


def limits(p, c):
    setting("capsule_streams", 3)
    for _ in range(20):  # what was cut a moment ago counts until its process has seen it
        open_ones = [Socket(URL, "/v1/capsules/" + c + "/exec/stream", bearer(p)) for _ in range(12)]
        counts = [s.status for s in open_ones]
        for s in open_ones:
            s.cut()
        if counts.count(101) >= 3:
            break
        time.sleep(0.5)
    check("too many streams: 429 at the upgrade, whichever process takes them", counts == [101] * 3 + [429] * 9, counts)
    setting("capsule_streams", None)


# ---- terminals

def output(s, until, seconds=60):
    got, end = b"", time.time() + seconds
    while until not in got and time.time() < end:
        m = s.recv(end - time.time())
        if m["type"] == "output":
            got += base64.b64decode(m["data"])
            output.seq = m["seq"]
    return got


def typed(s, line):
    s.send(type="input", data=base64.b64encode(line.encode()).decode())


def terminals(p, c):
    path = "/v1/capsules/" + c + "/pty"
    s = Socket(URL, path, bearer(p))
    s.send(type="start", cols=100, rows=30, envs={"PS1": "> "})
    m = s.recv()
    check("started: tag, pid, size", m["type"] == "started" and m["tag"].startswith("pty-") and m["pid"] > 0 and (m["cols"], m["rows"]) == (100, 30), m)
    typed(s, "echo mark-$((40+2)); stty size\n")
    got = output(s, b"30 100")
    check("input, output, size", b"mark-42" in got and b"30 100" in got, got)
    s.send(type="resize", cols=132, rows=43)
    typed(s, "stty size\n")
    check("resize", b"43 132" in output(s, b"43 132"))
    two = Socket(URL, path, bearer(p))
    two.send(type="connect", tag=m["tag"])
    m2 = two.recv()
    check("connect: started with pid and size", m2["type"] == "started" and m2["pid"] == m["pid"] and (m2["cols"], m2["rows"]) == (132, 43), m2)
    check("then the scrollback", b"mark-42" in output(two, b"43 132"))
    typed(two, "echo both-see-$((1+1))\n")
    check("both see, each may type", b"both-see-2" in output(s, b"both-see-2") and b"both-see-2" in output(two, b"both-see-2"))
    since = output.seq
    s.cut()
    two.cut()
    three = Socket(URL, path, bearer(p))
    three.send(type="connect", tag=m["tag"], since=since)
    three.recv()
    typed(three, "echo alone\n")
    got = output(three, b"alone\r\n")
    check("it lives on; since leaves out what was seen", b"both-see" not in got and b"alone" in got, got)
    three.text("{")
    check("broken JSON: 4400", code_after(three, 60) == 4400)
    four = Socket(URL, path, bearer(p))
    four.send(type="connect", tag=m["tag"])
    four.recv()
    four.send(type="resize", cols=0, rows=5)
    check("a size that is none: 4400", code_after(four, 60) == 4400)
    five = Socket(URL, path, bearer(p))
    five.send(type="connect", tag="pty-none")
    check("an unknown terminal: 4404", code_after(five, 60) == 4404)
    six = Socket(URL, path, bearer(p))
    six.send(type="connect", tag=m["tag"])
    six.recv()
    six.send(type="kill")
    got = six.all()
    check("kill: exit, 1000", got[-1]["type"] == "exit" and six.code == 1000, (got[-1:], six.code))


def floods(p, c):
    """A resize overtakes input that nobody takes: behind it, it would never come. How long it took is printed."""
    s = Socket(URL, "/v1/capsules/" + c + "/pty", bearer(p))
    s.send(type="start", cmd="sh", args=["-c", "trap 'stty size' WINCH; stty -echo; echo ready; while :; do sleep 0.02; done"])
    tag = s.recv()["tag"]
    output(s, b"ready")
    stop = threading.Event()

    def flood():
        while not stop.is_set():
            try:
                typed(s, "x" * 3000)
            except OSError:
                return
    t = threading.Thread(target=flood, daemon=True)
    t.start()
    time.sleep(1)
    look = Socket(URL, "/v1/capsules/" + c + "/pty", bearer(p))
    look.send(type="connect", tag=tag)
    look.recv()
    began = time.time()
    look.send(type="resize", cols=77, rows=11)
    got = output(look, b"11 77")
    took = time.time() - began
    check("a resize while nobody takes the input (%.0f ms)" % (took * 1e3), b"11 77" in got and took < 60, took)
    stop.set()
    look.send(type="kill")
    look.all()
    s.cut()


# ---- idle time, and what lasts by HTTP

def state(p, c, want, seconds):
    end = time.time() + seconds
    while (now := p("GET", "/v1/capsules/" + c).json["state"]) != want and time.time() < end:
        time.sleep(0.3)
    return now


def idles(p, c):
    """Acceptance 13: output in a terminal does not hold the timer, keys do; what policy put to sleep a stream wakes."""
    base = "/v1/capsules/" + c
    p("PATCH", base, {"timeout_sec": 5})
    s = Socket(URL, base + "/pty", bearer(p))
    s.send(type="start", cmd="sh", args=["-c", "while :; do echo tick; sleep 0.5; done"])
    check("a terminal that only shows", s.recv()["type"] == "started")
    check("does not keep it awake", state(p, c, "paused", 120) == "paused")
    check("and ends with its sleep: 4410", code_after(s, 60) == 4410, s.code)
    s = Socket(URL, base + "/exec/stream", bearer(p))
    s.send(type="start", cmd="echo", args=["awake"])
    got = s.all()
    check("a stream wakes what policy put to sleep", any(m.get("data") == "awake\n" for m in got) and s.code == 1000, (got, s.code))
    p("PATCH", base, {"timeout_sec": 10})  # a key a second; some may come late
    for _ in range(4):  # too late, when this machine stands still: then it sleeps, rightly
        s = Socket(URL, base + "/pty", bearer(p))
        s.send(type="start", cmd="cat")
        s.recv()
        gap = 0
        for _ in range(22):
            began = time.time()
            try:
                typed(s, "k")
            except OSError:
                break
            time.sleep(1)
            gap = max(gap, time.time() - began)
        now = state(p, c, "running", 0)
        if now == "running" or gap < 3:
            break
    check("typed keys keep it awake", now == "running", (now, gap))
    try:
        s.send(type="kill")
    except OSError:
        pass
    s.cut()
    p("PATCH", base, {"timeout_sec": 0})


def follows(p, c):
    """The log that is followed ends when its reader may not any more."""
    reader = crew.Person("reader").into(p, "member")
    at = urlsplit(URL)
    conn = http.client.HTTPConnection(at.hostname, at.port or 80, timeout=60)
    conn.request("GET", "/v1/capsules/" + c + "/logs?source=serial&follow=true", headers=bearer(reader))
    a = conn.getresponse()
    check("a log that is followed", a.status == 200, a.status)
    began = time.time()
    check("its reader leaves the team", p("DELETE", f"/v1/teams/{p.team}/members/{reader.id}").status == 204)
    try:
        while a.read1(4096):
            pass
    except http.client.IncompleteRead:
        pass
    except TimeoutError:
        began = 0
    check("it ends", time.time() - began < 50, time.time() - began)
    conn.close()


def lost(p, c):
    """The host agent dies: 4503, once it is clear that the capsule itself runs on; its successor adopts the machine."""
    run = os.environ["HUTCH_RUN"]
    pid = int(open(run + "/pid/agent").read().split()[0])
    words, env = (open("/proc/%d/%s" % (pid, f), "rb").read().split(b"\0")[:-1] for f in ("cmdline", "environ"))
    where = os.readlink("/proc/%d/cwd" % pid)
    s = Socket(URL, "/v1/capsules/" + c + "/exec/stream", bearer(p))
    s.send(type="start", cmd="sleep", args=["120"], tag="lonely")
    check("a command while its host is there", s.recv()["type"] == "start")
    os.kill(pid, signal.SIGKILL)
    code = code_after(s, 60)
    with open(run + "/log/agent.log", "ab") as log:
        # as whoever began it: the one before gave its rights to its launcher
        new = subprocess.Popen(words, env=dict(e.split(b"=", 1) for e in env), cwd=where, stdout=log, stderr=log,
                               stdin=subprocess.DEVNULL, start_new_session=True)
    with open("/proc/%d/stat" % new.pid) as f:
        started = f.read().rpartition(")")[2].split()[19]
    with open(run + "/pid/agent", "w") as f:
        f.write("%d %s\n" % (new.pid, started))
    check("the host is lost: 4503", code == 4503, code)
    for _ in range(60):
        s = Socket(URL, "/v1/capsules/" + c + "/exec/stream", bearer(p))
        s.send(type="connect", tag="lonely")
        try:
            if s.recv()["type"] == "start":
                break
        except (Closed, TimeoutError):
            pass
        s.cut()
        time.sleep(0.5)
    else:
        s = None
    check("its successor adopted the machine", s is not None)
    if s:
        s.send(type="kill")
        s.cut()


# ---- the end

def restarts(p, c):
    """The gateway goes; since goes on without loss."""
    path = "/v1/capsules/" + c
    s = Socket(URL, path + "/exec/stream", bearer(p))
    s.send(type="start", cmd="sh", args=["-c", "i=0; while [ $i -lt 60 ]; do echo line-$i; i=$((i+1)); sleep 0.05; "
                                              "while [ $i = 40 ] && [ ! -e /tmp/on ]; do sleep 0.1; done; done"], tag="counts")
    s.recv()
    got, seq = "", 0
    while "line-5\n" not in got:
        m = s.recv()
        got, seq = got + m["data"], m["seq"]
    setting("slow_sec", None)
    while "line-6\n" not in got:
        got += s.recv().get("data", "")
    check("a reload leaves open streams alone", "line-6\n" in got)
    for child in processes(gateway()):
        try:
            os.kill(child, signal.SIGTERM)
        except ProcessLookupError:
            pass  # it had nothing more to do
    try:
        while True:
            m = s.recv()
            got, seq = got + m.get("data", ""), m.get("seq", seq)
    except Closed as e:
        check("the process ends: 1001", e.code == 1001, e)
    except TimeoutError:
        check("the process ends: 1001", False)
    for _ in range(30):  # it goes on while nobody looks
        if p("POST", path + "/exec", {"cmd": "touch", "args": ["/tmp/on"]}).status == 200:
            break
        time.sleep(0.5)
    s = Socket(URL, path + f"/processes/tag:counts/stream?since={len(got)}", bearer(p))
    more = s.all()
    got += "".join(m["data"] for m in more if m["type"] == "stdout")
    check("since goes on without loss", got == "".join("line-%d\n" % i for i in range(60)) and s.code == 1000, (len(got), s.code, more[:2]))


def sleeps(p, c):
    base = "/v1/capsules/" + c
    s = Socket(URL, base + "/exec/stream", bearer(p))
    s.send(type="start", cmd="sleep", args=["300"], tag="sleeper")
    s.recv()
    check("hibernate", p("POST", base + "/hibernate", {}).status in (200, 202))
    check("its streams end: 4410", code_after(s, 60) == 4410, s.code)
    s = Socket(URL, base + "/exec/stream", bearer(p))
    s.send(type="connect", tag="sleeper")
    got = s.all()
    check("what a person put to sleep: 4409, with its state", s.code == 4409 and got[-1]["data"].startswith("sandbox is not running (status: h"), (got, s.code))
    p("POST", base + "/resume", {})
    end = time.time() + 180
    while p("GET", base).json["status"] != "running" and time.time() < end:
        time.sleep(0.5)
    s = Socket(URL, base + "/exec/stream", bearer(p))
    s.send(type="connect", tag="sleeper", since=0)
    check("it survived", s.recv()["type"] == "start")
    p("DELETE", base)
    check("destroyed: 4410", code_after(s, 60) == 4410, s.code)


def main():
    p = crew.Person("streams")
    made = [p("POST", "/v1/capsules", {"template": "minimal"}) for _ in range(2)]
    if any(a.status != 201 for a in made):
        sys.exit("no capsules: %s" % made)
    c, other = (a.json["id"] for a in made)
    for one in (c, other):
        if state(p, one, "running", 240) != "running":
            sys.exit("a capsule does not start")
    parts = {"tickets": lambda: tickets(p, c, other), "logins": lambda: logins(p, c), "roles": lambda: roles(p, c),
             "terminals": lambda: terminals(p, c), "floods": lambda: floods(p, c), "limits": lambda: limits(p, c),
             "idles": lambda: idles(p, c), "follows": lambda: follows(p, c), "lost": lambda: lost(p, c),
             "restarts": lambda: restarts(p, c), "sleeps": lambda: sleeps(p, c)}
    try:
        for name, part in parts.items():
            if not ONLY or name in ONLY:
                part()
    finally:
        for one in (c, other):
            p("DELETE", "/v1/capsules/" + one)
    assert uuid_of(c)
    crew.end()


if __name__ == "__main__":
    main()
