#!/usr/bin/env python3
"""streams.py - WebSockets of capsules: commands, processes, terminals (spec 02 §3); on an instance, in a real capsule."""
import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from sockets import Closed, Socket, setting  # noqa: E402

URL = os.environ.get("HUTCH_URL", "http://localhost:8080")
KEY = {"X-API-Key": os.environ.get("HUTCH_API_KEY", "")}
DB = os.environ.get("HUTCH_TEST_DB", "")
ONLY = sys.argv[1:]
MIB = int(os.environ.get("HUTCH_STREAM_MIB", "20"))
FAILED = 0


def check(name, good, why=""):
    global FAILED
    FAILED += not good
    print("ok %s" % name if good else "not ok %s: %s" % (name, str(why)[:400]), flush=True)


def call(method, path, body=None, headers=KEY):
    req = urllib.request.Request(URL + path, None if body is None else json.dumps(body).encode(),
                                 {**headers, "Content-Type": "application/json"}, method=method)
    try:
        with urllib.request.urlopen(req, timeout=150) as a:
            data = a.read()
            return a.status, json.loads(data) if data and a.headers.get("Content-Type", "").startswith("application/json") else data
    except urllib.error.HTTPError as e:
        data = e.read()
        return e.code, json.loads(data) if data.startswith(b"{") else data


def sql(statement):
    return subprocess.run(["psql", "-qAtX", "-v", "ON_ERROR_STOP=1", "-c", statement, DB], check=True, text=True,
                          stdout=subprocess.PIPE).stdout.strip()


def run(base, cmd, *args, **more):
    """All messages of a command, and the code of the close."""
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd=cmd, args=list(args), **more)
    got = s.all()
    return got, s.code


def text(messages, kind="stdout"):
    return "".join(m["data"] for m in messages if m["type"] == kind)


def one(messages, kind):
    found = [m for m in messages if m["type"] == kind]
    return found[0] if found else {}


def ours():
    """The origin of our pages: the installation's, whichever web server is asked."""
    with open(os.environ["HUTCH_CONF"]) as f:
        return re.search(r'(?m)^public_url = "(.*)"', f.read()).group(1)


# ---- commands

def commands(base):
    got, code = run(base, "sh", "-c", "echo out; echo err >&2; exit 3", tag="first", envs={"A": "b"})
    check("start is first, with pid and tag", got[0]["type"] == "start" and got[0]["pid"] > 0 and got[0]["tag"] == "first", got)
    check("stdout and stderr", text(got) == "out\n" and text(got, "stderr") == "err\n", got)
    check("positions grow", [m["seq"] for m in got if "seq" in m][-1] == 8, got)
    check("exit, then 1000", got[-1] == {"type": "exit", "exit_code": 3, "timed_out": False} and code == 1000, (got, code))
    got, _ = run(base, "sh", "-c", "echo $A $(pwd) $(id -un)", envs={"A": "b"}, cwd="/tmp", user="root")
    check("envs, cwd, user", text(got) == "b /tmp root\n", got)
    got, code = run(base, "sh", "-c", "kill -9 $$")
    check("killed: -1 and the signal", one(got, "exit").get("exit_code") == -1 and one(got, "exit").get("signal") == 9, got)
    began = time.time()
    got, code = run(base, "sleep", "300", timeout_sec=1)
    check("timeout_sec: TERM, timed_out", one(got, "exit").get("timed_out") is True and time.time() - began < 60, (time.time() - began, got))
    got, code = run(base, "no-such-command")
    check("no such command: 127", one(got, "exit").get("exit_code") == 127 and code == 1000, (got, code))
    got, code = run(base, "true", cwd="/no/such/place")
    check("a bad cwd: an error, then 4400", one(got, "error").get("fatal") is True and one(got, "error").get("code") == "invalid_request"
          and code == 4400, (got, code))


def inputs(base):
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="cat", stdin=True)
    check("cat starts", s.recv()["type"] == "start")
    s.send(type="stdin", data="grüße\n")
    check("stdin is echoed", s.recv()["data"] == "grüße\n")
    s.send(type="unknown")
    s.send(type="eof")
    got = s.all()
    check("eof ends it", got[-1].get("exit_code") == 0 and s.code == 1000, got)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="cat", stdin=True, encoding="base64")
    s.recv()
    raw = bytes(range(256)) * 400
    for i in range(0, len(raw), 10000):
        s.send(type="stdin", data=base64.b64encode(raw[i:i + 10000]).decode())
    s.send(type="eof")
    got = s.all()
    check("bytes in, the same bytes out", b"".join(base64.b64decode(m["data"]) for m in got if m["type"] == "stdout") == raw, len(got))
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="sh", args=["-c", "trap 'echo got; exit 7' TERM; echo on; while :; do sleep 0.1; done"])
    while s.recv()["type"] != "stdout":
        pass
    s.send(type="signal", signal="SIGTERM")
    got = s.all()
    check("signal", text(got) == "got\n" and got[-1].get("exit_code") == 7, got)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="sleep", args=["100"])
    s.recv()
    s.send(type="kill")
    got = s.all()
    check("kill", got and got[-1].get("signal") == 9, got)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="sleep", args=["100"])
    s.recv()
    s.send(type="signal", signal="SIGNONE")
    got = s.all()
    check("a signal that is none: 4400", s.code == 4400 and got[-1]["fatal"], (got, s.code))


def alive(base, tag):
    status, got = call("GET", base + "/processes/tag:" + tag)
    return status == 200 and got["state"] == "running"


def ends(base):
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="sleep", args=["200"], tag="stays")
    s.recv()
    s.send(type="stop")
    s.all()
    check("stop: 1000, the process goes on", s.code == 1000 and alive(base, "stays"), s.code)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="connect", tag="stays", since=0)
    got = s.recv()
    check("connect", got["type"] == "start" and got["tag"] == "stays", got)
    s.send(type="kill")
    got = s.all()
    check("a viewer may kill, and sees the end", got[-1].get("signal") == 9, got)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="sleep", args=["200"], tag="dies", kill_on_close=True)
    s.recv()
    s.cut()
    end = time.time() + 60
    while alive(base, "dies") and time.time() < end:
        time.sleep(0.2)
    check("kill_on_close", not alive(base, "dies"))


def wrong(base):
    for name, sent, code in (("broken JSON", "{", 4400), ("no object", "[1]", 4400), ("no type", '{"a":1}', 4400),
                             ("cmd is missing", '{"type":"start"}', 4400), ("a number as cmd", '{"type":"start","cmd":1}', 4400),
                             ("an encoding that is none", '{"type":"start","cmd":"true","encoding":"hex"}', 4400),
                             ("nothing to connect to", '{"type":"connect"}', 4400),
                             ("no such process", '{"type":"connect","tag":"nobody"}', 4404),
                             ("too large", '{"type":"x","d":"%s"}' % ("x" * (1 << 20)), 4413), ("no UTF-8", b'{"type":"\xff"}', 4400)):
        s = Socket(URL, base + "/exec/stream", KEY)
        s.text(sent)
        got = s.all()
        check("%s: %d" % (name, code), s.code == code and got and got[-1]["type"] == "error" and got[-1]["fatal"], (got, s.code))
    s = Socket(URL, base + "/exec/stream", KEY)
    s.put(1, b"{}", mask=False)
    s.all()
    check("an unmasked frame: 1002", s.code == 1002, s.code)
    s = Socket(URL, base + "/exec/stream", KEY)
    s.put(1, b'{"type":"start",', fin=False)
    s.put(9, b"hello")
    s.put(0, b'"cmd":"true"}')
    check("fragments, a ping between", s.all()[-1].get("exit_code") == 0, s.code)


def doors(base):
    bad = Socket(URL, "/v1/capsules/cl-bad/exec/stream", KEY)
    check("a bad id: 400 before the upgrade", bad.status == 400, bad.status)
    check("a bad selector too", Socket(URL, base + "/processes/tag:/stream", KEY).status == 400)
    check("a bad key: 401", Socket(URL, base + "/exec/stream", {"X-API-Key": "htc_x"}).status == 401)
    check("no WebSocket: 400, 401", call("GET", base + "/exec/stream")[0] == 400 and call("GET", base + "/exec/stream", headers={})[0] == 401)
    s = Socket(URL, "/v1/capsules/cl-0000000000000000000000000/exec/stream", KEY)
    s.send(type="start", cmd="true")
    got = s.all()
    check("an unknown capsule: 4404 behind the first message", s.code == 4404 and got[-1]["data"] == "sandbox not found", (got, s.code))
    s = Socket(URL, "/v1/capsules/cl-0000000000000000000000000/processes/x/stream", KEY)
    s.all()
    check("at once where nothing needs to be said", s.code == 4404, s.code)
    s = Socket(URL, base + "/exec/stream", {**KEY, "Origin": "https://evil.example"})
    check("another origin: 403", s.status == 403, s.status)
    s = Socket(URL, base + "/exec/stream", {**KEY, "Origin": ours()})
    check("our origin: 101", s.status == 101, s.status)
    s.close()
    s = Socket(URL, base + "/exec/stream")
    s.send(type="auth", token="nonsense")
    got = s.all()
    check("a bad token: an error, 4401", s.code == 4401 and got == [{"type": "error", "data": "authentication failed",
          "code": "unauthorized", "fatal": True}], (got, s.code))
    began = time.time()
    s = Socket(URL, base + "/exec/stream")
    s.all()
    check("who says nothing for 5 s: 4401", s.code == 4401 and 4 < time.time() - began < 45, (s.code, time.time() - began))


# ---- output

def amounts(base):
    got, _ = run(base, "python3", "-c", "import sys\nfor b in 'Grüße, 世界 🎉\\n'.encode() * 50:\n sys.stdout.buffer.write(bytes([b])); sys.stdout.flush()")
    check("UTF-8 in writes of one byte", text(got) == "Grüße, 世界 🎉\n" * 50, text(got)[:60])
    got, _ = run(base, "sh", "-c", r"printf 'a\377b\303'")
    check("invalid bytes are U+FFFD", text(got) == "a\ufffdb\ufffd", got)
    n = MIB << 20
    began = time.time()
    s = Socket(URL, base + "/exec/stream", KEY, timeout=90)
    s.send(type="start", cmd="sh", args=["-c", "head -c %d /dev/urandom >/tmp/r; sha256sum </tmp/r; cat /tmp/r" % n], encoding="base64")
    raw = b"".join(base64.b64decode(m["data"]) for m in s.all(280) if m["type"] == "stdout")
    want, body = raw[:64].decode(), raw[68:]
    check("%d MiB of random bytes, equal (%.1f MB/s)" % (MIB, n / 1e6 / (time.time() - began)),
          hashlib.sha256(body).hexdigest() == want, (len(body), s.code))
    call("POST", base + "/exec", {"cmd": "rm", "args": ["/tmp/r"]})


def slow(base):
    setting("slow_sec", 3)
    s = Socket(URL, base + "/exec/stream", KEY, receive_buffer=4096)
    s.send(type="start", cmd="sh", args=["-c", "head -c 12000000 /dev/zero | tr '\\0' x; echo done >/tmp/slow-done; sleep 600"], tag="flood")
    s.recv()
    time.sleep(6)
    end = time.time() + 120
    while time.time() < end and call("POST", base + "/exec", {"cmd": "cat", "args": ["/tmp/slow-done"]})[1]["exit_code"]:
        time.sleep(0.5)
    s.all()
    check("a starter that takes nothing: 4429", s.code == 4429, s.code)
    check("the process went on", call("POST", base + "/exec", {"cmd": "cat", "args": ["/tmp/slow-done"]})[1]["stdout"] == "done\n")
    s = Socket(URL, base + "/processes/flood/stream?since=0", KEY)
    got, n, end = [], 0, time.time() + 60
    try:
        while len(got) < 2 or n < 12000000 - got[1].get("to", 0):
            got.append(s.recv(end - time.time()))
            n += len(got[-1].get("data", ""))
    except (TimeoutError, Closed):
        pass
    check("since=0: start, a gap, the last MiB", got[0]["type"] == "start" and got[1]["type"] == "gap" and got[1]["from"] == 0
          and got[1]["to"] == 12000000 - n and 900000 < n < 1200000, (got[:2], n))
    s.send(type="kill")
    s.all()
    setting("slow_sec", None)


def viewers(base):
    starter = Socket(URL, base + "/exec/stream", KEY)
    starter.send(type="start", cmd="sh", args=["-c", "read x; head -c 8000000 /dev/zero | tr '\\0' y; echo; echo end"], stdin=True, tag="watched")
    starter.recv()
    viewer = Socket(URL, base + "/processes/tag:watched/stream", KEY, receive_buffer=4096)
    check("a viewer begins with start", viewer.recv()["type"] == "start")
    starter.send(type="stdin", data="go\n")
    began = time.time()
    got = starter.all()
    # he would hold it up for slow_sec, which is 60
    check("a viewer that does not read slows nobody", text(got).endswith("end\n") and time.time() - began < 55, time.time() - began)
    got = viewer.all()
    gaps = [m for m in got if m["type"] == "gap"]
    n = sum(len(m["data"]) for m in got if m["type"] == "stdout")
    check("he gets gaps, what is told adds up, and the end", gaps and n + sum(g["to"] - g["from"] for g in gaps) == 8000005
          and got[-1]["type"] == "exit", (gaps[:2], n, got[-1]))


def calls(base):
    status, got = call("POST", base + "/exec", {"cmd": "sh", "args": ["-c", "echo one; sleep 0.5; echo two >&2; sleep 600"], "background": True, "tag": "read"})
    end = time.time() + 60
    while call("GET", base + "/processes/read/output")[1].get("next") != 8 and time.time() < end:
        time.sleep(0.2)
    status, got = call("GET", base + "/processes/read/output")
    check("output: chunks and next", status == 200 and got["next"] == 8 and [(c["stream"], base64.b64decode(c["data"])) for c in got["chunks"]]
          == [("stdout", b"one\n"), ("stderr", b"two\n")], got)
    status, got = call("GET", base + "/processes/read/output?since=2&max=3")
    check("output: since and max", status == 200 and got["next"] == 5 and b"".join(base64.b64decode(c["data"]) for c in got["chunks"]) == b"e\nt", got)
    check("output: behind the end is 400", call("GET", base + "/processes/read/output?since=99")[0] == 400)
    check("output: max out of range", call("GET", base + "/processes/read/output?max=0")[0] == 400)
    check("output: no such process", call("GET", base + "/processes/nobody/output")[0] == 404)
    call("DELETE", base + "/processes/read")
    s = Socket(URL, base + "/exec/stream", KEY)
    s.send(type="start", cmd="cat", stdin=True, tag="cat")
    s.recv()
    check("stdin: 204", call("POST", base + "/processes/cat/stdin", {"data": base64.b64encode(b"hello\n").decode()})[0] == 204)
    check("stdin arrives", s.recv()["data"] == "hello\n")
    check("stdin: no base64 is 400", call("POST", base + "/processes/cat/stdin", {"data": "!"})[0] == 400)
    check("stdin: nothing is 400", call("POST", base + "/processes/cat/stdin", {})[0] == 400)
    check("stdin: eof", call("POST", base + "/processes/cat/stdin", {"eof": True})[0] == 204 and s.all()[-1].get("exit_code") == 0)
    call("POST", base + "/exec", {"cmd": "sleep", "args": ["60"], "background": True, "tag": "deaf"})
    status, a = call("POST", base + "/processes/deaf/stdin", {"data": "YQ=="})
    check("stdin: that of a process without one", status == 409 and a["error"]["code"] == "invalid_state", (status, a))
    check("stdin: no such process", call("POST", base + "/processes/cat/stdin", {"data": "YQ=="})[0] == 404)


# ---- files

def watches(base):
    check("watch: no path is 400", Socket(URL, base + "/files/watch", KEY).status == 400)
    call("POST", base + "/files/mkdir", {"path": "/root/w"})
    s = Socket(URL, base + "/files/watch?path=/root/w&recursive=true&entry=true", KEY)
    check("watch: started", s.recv() == {"type": "started"})
    call("POST", base + "/exec", {"cmd": "sh", "args": ["-c", "cd /root/w; echo x >a; chmod 600 a; mv a b; rm b; mkdir -p sub; echo y >sub/c"]})
    got, end = [], time.time() + 60
    try:
        while not any(m.get("name") == "sub/c" for m in got):
            got.append(s.recv(end - time.time()))
    except (TimeoutError, Closed):
        pass
    seen = [(m.get("event"), m.get("name")) for m in got]
    for want in (("create", "a"), ("write", "a"), ("chmod", "a"), ("rename", "a"), ("remove", "b"), ("create", "sub")):
        check("watch: %s %s" % want, want in seen, seen)
    check("watch: with the entry", any(m.get("entry", {}).get("type") == "directory" and m["entry"]["path"] == "/root/w/sub" for m in got), got)
    s.send(type="stop")
    s.all()
    check("watch: stop, 1000", s.code == 1000, s.code)
    s = Socket(URL, base + "/files/watch?path=/root/none", KEY)
    s.all()
    check("watch: a missing directory is 4404", s.code == 4404, s.code)


def contents(base):
    call("POST", base + "/exec", {"cmd": "sh", "args": ["-c", "printf 0123456789 >'/root/grüß dich.txt'"]})
    path = base + "/files/content?path=" + urllib.parse.quote("/root/grüß dich.txt")

    def get(p, headers=KEY):
        req = urllib.request.Request(URL + p, None, headers)
        try:
            with urllib.request.urlopen(req, timeout=150) as a:
                return a.status, a.headers, a.read()
        except urllib.error.HTTPError as e:
            return e.code, e.headers, e.read()
    status, head, body = get(path)
    check("content: the bytes", status == 200 and body == b"0123456789", (status, body))
    check("content: named, not sniffed, in a sandbox", head["Content-Disposition"] ==
          "inline; filename=\"gr____ dich.txt\"; filename*=UTF-8''gr%C3%BC%C3%9F%20dich.txt" and head["X-Content-Type-Options"] == "nosniff"
          and "sandbox" in ", ".join(head.get_all("Content-Security-Policy")), head)
    check("content: download", get(path + "&download=true")[1]["Content-Disposition"].startswith("attachment;"))
    status, head, body = get(path, {**KEY, "Range": "bytes=2-4"})
    check("content: a range", status == 206 and body == b"234" and head["Content-Range"] == "bytes 2-4/10", (status, body))
    check("content: missing is 404", get(base + "/files/content?path=/none")[0] == 404)
    check("content: no path is 400, no credential 401", get(base + "/files/content")[0] == 400 and get(path, {})[0] == 401)
    status, got = call("POST", "/v1/auth/tickets", {"purpose": "files", "capsule": base.split("/")[-1]})
    check("content: a ticket opens it, once", get(path + "&ticket=" + got["ticket"], {})[0] == 200 and get(path + "&ticket=" + got["ticket"], {})[0] == 401)
    status, got = call("POST", "/v1/auth/tickets", {"purpose": "logs", "capsule": base.split("/")[-1]})
    check("logs: a ticket opens them", get(base + "/logs?ticket=" + got["ticket"], {})[0] == 200)


PARTS = (watches, contents, commands, inputs, ends, wrong, doors, calls, amounts, viewers, slow)


def main():
    status, c = call("POST", "/v1/capsules", {"template": "minimal"})
    if status != 201:
        sys.exit("no capsule: %s %s" % (status, c))
    base, end = "/v1/capsules/" + c["id"], time.time() + 180
    while call("GET", base)[1].get("state") != "running" and time.time() < end:
        time.sleep(0.3)
    try:
        for part in PARTS:
            if not ONLY or part.__name__ in ONLY:
                part(base)
    finally:
        call("DELETE", base)
    sys.exit(1 if FAILED else 0)


if __name__ == "__main__":
    main()
