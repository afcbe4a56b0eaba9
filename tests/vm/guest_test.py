#!/usr/bin/env python3
"""guest_test.py - the guest agent against its protocol, without a machine and then in a real one.

    guest_test.py [--agent PROGRAM] [--images DIR] [--only WORD]

PROGRAM is hutch-guest-test. DIR is images/build's OUTDIR; without it, or without QEMU, the checks in
a machine are skipped. Standard library and curl only. A line per check; status 1 when one failed.
"""
import argparse
import base64
import hashlib
import json
import os
import pwd
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOKEN = "token-of-the-test"
ME = pwd.getpwuid(os.geteuid())
CHECKS = []


class Skip(Exception):
    pass


def check(where):
    """Collects the function; its name is the check's, where is "agent" or "machine"."""

    def take(function):
        CHECKS.append((where, function))
        return function

    return take


def same(got, want, what="value"):
    if got != want:
        raise AssertionError(f"{what} is {got!r}, not {want!r}")


def has(text, part):
    if part not in text:
        raise AssertionError(f"{part!r} is not in {str(text)[:300]!r}")


def frame(message, flags=0):
    body = message if isinstance(message, bytes) else json.dumps(message).encode()
    return struct.pack(">BI", flags, len(body)) + body


class Stream:
    """A Connect stream, read as it comes."""

    def __init__(self, agent, path, body, headers):
        self.process = subprocess.Popen(
            agent.curl(path, dict(headers), "--no-buffer", "--data-binary", "@-"),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdin.write(body)
        self.process.stdin.close()
        self.end = None

    def message(self):
        """The next message, or None after the last frame (then .end)."""
        head = self.process.stdout.read(5)
        if len(head) < 5:
            return None
        flags, length = struct.unpack(">BI", head)
        body = json.loads(self.process.stdout.read(length))
        if flags & 2:
            self.end = body
            return None
        return body

    def rest(self):
        messages = []
        while (m := self.message()) is not None:
            messages.append(m)
        self.close()
        return messages

    def start(self):
        """The pid in the first message."""
        return self.message()["event"]["start"]["pid"]

    def until(self, kind, text):
        """Reads output of a kind until it holds the text."""
        got = b""
        while text not in got:
            m = self.message()
            if m is None:
                raise AssertionError(f"{text!r} did not come, but {got!r} and {self.end}")
            got += base64.b64decode(m["event"].get("data", {}).get(kind, ""))
        return got

    def close(self):
        self.process.stdout.close()
        self.process.kill()
        self.process.wait()


class Agent:
    def __init__(self, path):
        self.path = path
        self.epoch = 0

    def curl(self, path, headers, *more):
        args = ["curl", "-s", "--http2-prior-knowledge", "--unix-socket", self.path, "--max-time", "60"]
        headers.setdefault("x-access-token", TOKEN)
        for name, value in headers.items():
            if value is not None:
                args += ["-H", f"{name}: {value}"]
        return args + list(more) + ["http://guest" + path]

    def call(self, method, path, body=None, headers=None, more=()):
        """(status, headers, body)"""
        with tempfile.NamedTemporaryFile() as head:
            args = self.curl(path, dict(headers or {}), "-X", method, "-D", head.name, *more)
            if body is not None:
                args[1:1] = ["--data-binary", "@-"]
            done = subprocess.run(args, input=body, stdout=subprocess.PIPE)
            lines = head.read().decode().split("\r\n")
        if done.returncode and not lines[0]:
            raise AssertionError(f"curl failed with {done.returncode}")
        fields = dict(l.lower().split(": ", 1) for l in lines[1:] if ": " in l)
        return int(lines[0].split()[1]), fields, done.stdout

    def rpc(self, path, message, **headers):
        """(status, answer) of a unary call"""
        headers = {"content-type": "application/json", **{k.replace("_", "-"): v for k, v in headers.items()}}
        body = message if isinstance(message, bytes) else json.dumps(message).encode()
        status, _, answer = self.call("POST", path, body, headers)
        return status, json.loads(answer or b"null")

    def ok(self, path, message, **headers):
        status, answer = self.rpc(path, message, **headers)
        same(status, 200, f"status ({answer})")
        return answer

    def stream(self, path, message, **headers):
        headers = {"content-type": "application/connect+json",
                   **{k.replace("_", "-"): v for k, v in headers.items()}}
        return Stream(self, path, message if isinstance(message, bytes) else frame(message), headers)

    def start(self, *argv, process=None, **more):
        headers = more.pop("headers", {})
        message = {"process": {"cmd": argv[0], "args": list(argv[1:]), **(process or {})}, **more}
        return self.stream("/process.Process/Start", message, **headers)

    def run(self, *argv, **more):
        """(stdout, stderr, end event, last frame)"""
        s = self.start(*argv, **more)
        out, end = {"stdout": b"", "stderr": b"", "pty": b""}, None
        for m in s.rest():
            event = m["event"]
            for kind, text in event.get("data", {}).items():
                if kind in out:
                    out[kind] += base64.b64decode(text)
            end = event.get("end", end)
        return out["stdout"] or out["pty"], out["stderr"], end, s.end

    def sh(self, script, **more):
        out, err, end, last = self.run("sh", "-c", script, **more)
        if not end:
            raise AssertionError(f"no end but {last}")
        return (out + err).decode()

    def init(self, **more):
        message = {"epoch": self.epoch, "accessToken": TOKEN, "defaultUser": ME.pw_name, **more}
        return self.call("POST", "/init", json.dumps({k: v for k, v in message.items() if v is not None}).encode())


P, F = "/process.Process/", "/filesystem.Filesystem/"

# ---- before and at init ----


@check("agent")
def health_needs_no_token(a):
    status, headers, _ = a.call("GET", "/health", headers={"x-access-token": None, "x-hutch-nonce": "n1"})
    same(headers["x-hutch-nonce"], "n1")
    same((status, "x-hutch-version" in headers, "x-hutch-epoch" in headers), (204, True, False))


@check("agent")
def nothing_works_before_init(a):
    same(a.call("GET", "/envs")[0], 503)
    same(a.rpc(P + "List", {}), (503, {"code": "unavailable", "message": "the capsule is not ready yet"}))
    same(a.call("GET", "/files?path=/etc/passwd")[0], 503)


@check("agent")
def a_bad_init_is_refused(a):
    for bad in ({"accessToken": None}, {"accessToken": ""}, {"accessToken": 7}, {"epoch": -1}, {"epoch": "x"},
                {"epoch": None}, {"envVars": {"A": 1}}, {"envVars": {"A=B": "1"}}, {"envVars": []},
                {"machineId": "xyz"}, {"entropy": "***"}, {"entropy": "A" * 2000}, {"hostname": "a b"},
                {"timestamp": "yesterday"}, {"timestamp": {}}):
        status, _, body = a.init(**bad)
        same(status, 400, f"status of {bad}")
        same(json.loads(body)["code"], 400)
    for body in (b"", b"[]", b"{", b"\xff", b'{"epoch":1,"epoch":2}'):
        same(a.call("POST", "/init", body)[0], 400)
    same(a.call("POST", "/init", b"{" + b" " * (1 << 20) + b"}")[0], 413)
    same(a.call("GET", "/envs")[0], 503)


@check("agent")
def init_opens_the_agent(a):
    a.epoch = 3
    status, headers, _ = a.init(envVars={"A": "of the capsule", "B": "b"}, timestamp="2026-11-21T12:00:00.5Z",
                                entropy=base64.b64encode(b"e" * 64).decode(), capsuleId="cl-1", unknown=[1])
    same(status, 204)
    same(headers["x-envd-version"], "0.6.13")
    same(a.call("GET", "/health")[1]["x-hutch-epoch"], "3")
    envs = json.loads(a.call("GET", "/envs")[2])
    same(envs, {"A": "of the capsule", "B": "b", "E2B_SANDBOX": "true", "HUTCH": "true", "E2B_SANDBOX_ID": "cl-1",
                "HUTCH_CAPSULE_ID": "cl-1"})


@check("agent")
def an_epoch_is_taken_once(a):
    same(a.init(envVars={"A": "again"})[0], 204)
    same(json.loads(a.call("GET", "/envs")[2])["A"], "of the capsule")
    status, _, body = a.init(epoch=2)
    same(status, 409)
    has(body.decode(), "epoch 2 is past")


@check("agent")
def the_token_is_asked_for(a):
    for token in (None, "", "token", TOKEN + "x", TOKEN[:-1]):
        headers = {"x-access-token": token}
        same(a.call("GET", "/envs", headers=headers)[0], 401)
        same(a.call("POST", "/files?path=/x", b"x", headers)[0], 401)
        same(a.rpc(P + "List", {}, x_access_token=token)[1]["code"], "unauthenticated")
    status, _, body = a.call("GET", "/envs", headers={"x-access-token": None})
    same((status, json.loads(body)["code"]), (401, 401))


@check("agent")
def unknown_calls_are_named_so(a):
    same(a.call("GET", "/nothing")[0], 404)
    same(a.call("DELETE", "/files")[0], 405)
    same(a.rpc(P + "Dance", {}), (501, {"code": "unimplemented", "message": "no such method"}))
    same(a.rpc(F + "WatchDir", {})[0], 501)


@check("agent")
def content_types_are_checked(a):
    same(a.call("POST", P + "List", b"{}", {"content-type": "text/plain"})[0], 415)
    same(a.call("POST", P + "Start", b"{}", {"content-type": "application/json"})[0], 415)
    same(a.call("POST", P + "List", b"{}", {"content-type": "application/json; charset=utf-8"})[0], 200)


@check("agent")
def metrics_have_numbers(a):
    m = json.loads(a.call("GET", "/metrics")[2])
    for name in ("ts", "cpu_count", "cpu_used_pct", "mem_total", "mem_used", "mem_cache", "mem_total_mib", "mem_used_mib",
                 "disk_used", "disk_total"):
        if not isinstance(m[name], (int, float)) or m[name] < 0:
            raise AssertionError(f"{name} is {m[name]!r}")


# ---- processes ----


@check("agent")
def output_and_status(a):
    out, err, end, last = a.run("sh", "-c", "echo out; echo err >&2")
    same((out, err, last), (b"out\n", b"err\n", {}))
    same(end, {"exited": True, "status": "exit status 0"})


@check("agent")
def failure_has_code_and_error(a):
    same(a.run("sh", "-c", "exit 3")[2],
         {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"})


@check("agent")
def a_signal_is_named(a):
    same(a.run("sh", "-c", "kill -9 $$")[2], {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"})
    same(a.run("sh", "-c", "kill -15 $$")[2]["status"], "signal: terminated")


@check("agent")
def a_missing_command_is_not_found(a):
    s = a.start("no-such-command")
    same(s.rest(), [])
    same(s.end["error"], {"code": "not_found",
                          "message": 'exec: "no-such-command": executable file not found in $PATH'})
    s = a.start("/no/such/command")
    s.rest()
    same(s.end["error"]["code"], "not_found")


@check("agent")
def what_may_not_run_is_denied(a):
    s = a.start("/etc/passwd")
    same(s.rest(), [])
    same(s.end["error"]["code"], "permission_denied")


@check("agent")
def a_missing_directory_is_told(a):
    s = a.start("true", process={"cwd": "/no/such/dir"})
    same(s.rest(), [])
    same(s.end["error"], {"code": "invalid_argument", "message": "cwd '/no/such/dir' does not exist"})


@check("agent")
def an_unknown_user_is_told(a):
    auth = "Basic " + base64.b64encode(b"nobody-here:").decode()
    s = a.start("true", headers={"authorization": auth})
    s.rest()
    same(s.end["error"], {"code": "unauthenticated", "message": "invalid username: 'nobody-here'"})
    s = a.start("true", headers={"authorization": "Bearer x"})
    s.rest()
    same(s.end["error"]["code"], "unauthenticated")


@check("agent")
def bad_starts_are_refused(a):
    for bad in ({}, {"process": {}}, {"process": {"cmd": ""}}, {"process": {"cmd": 1}}, {"process": "x"},
                {"process": {"cmd": "true", "args": [1]}}, {"process": {"cmd": "true", "args": "x"}},
                {"process": {"cmd": "true", "envs": {"": "x"}}}, {"process": {"cmd": "true", "envs": {"A": None}}},
                {"process": {"cmd": "true", "cwd": "~root/x"}}, {"process": {"cmd": "true"}, "tag": "t" * 200},
                {"process": {"cmd": "true"}, "pty": {"size": {"cols": -1}}},
                {"process": {"cmd": "true"}, "pty": {"size": {"cols": 70000}}},
                {"process": {"cmd": "true"}, "stdin": "yes"}, {"process": {"cmd": "true"}, "since": -2}):
        s = a.stream(P + "Start", bad)
        same(s.rest(), [], f"messages of {bad}")
        same(s.end["error"]["code"], "invalid_argument", f"{bad}: {s.end}")


@check("agent")
def bad_frames_are_refused(a):
    good = {"process": {"cmd": "true"}}
    for bad, code in ((b"", "invalid_argument"), (b"\0\0", "invalid_argument"), (frame(b"{"), "invalid_argument"),
                      (frame(b"[]"), "invalid_argument"), (frame(good, 1), "unimplemented"),
                      (frame(good, 4), "invalid_argument"), (b"\0\xff\xff\xff\xff{}", "resource_exhausted"),
                      (frame(good) + frame(good), "invalid_argument"), (frame(good)[:-1], "invalid_argument"),
                      (frame(b'{"process":{"cmd":"a\\u0000b"}}'), "invalid_argument"),
                      (frame(b"[" * 5000), "invalid_argument")):
        s = a.stream(P + "Start", bad)
        same(s.rest(), [], f"messages of {bad[:20]}")
        same(s.end["error"]["code"], code, f"code of {bad[:20]}")


@check("agent")
def the_last_variable_wins(a):
    out = a.run("env", process={"envs": {"A": "of the request", "HOME": "/x", "C": "=="}})[0].decode().split("\n")
    for line in ("A=of the request", "B=b", "HOME=/x", "C===", "USER=" + ME.pw_name, "LOGNAME=" + ME.pw_name,
                 "E2B_SANDBOX=true"):
        has(out, line)
    same(len([l for l in out if l.startswith("A=")]), 1)


@check("agent")
def a_process_is_set_up_as_promised(a):
    same(a.sh("umask; cat /proc/self/oom_score_adj; nice").split(), ["0022", "100", "0"])
    same(a.sh("pwd", process={"cwd": "/usr/../tmp"}), "/tmp\n")
    same(a.sh("pwd", process={"cwd": "~"}).strip(), os.path.realpath(ME.pw_dir))
    same(a.sh("ls /proc/self/fd | wc -l").strip(), "4")
    same(a.sh("grep SigBlk /proc/self/status").split()[1], "0" * 16)
    same(a.sh('set -- $(cat /proc/self/stat); [ "$5" = "$6" ] && echo leads').strip(), "leads")


@check("agent")
def standard_input(a):
    s = a.start("cat", tag="cat-1")
    pid = s.start()
    a.ok(P + "SendInput", {"process": {"tag": "cat-1"}, "input": {"stdin": base64.b64encode(b"hello").decode()}})
    same(s.until("stdout", b"hello"), b"hello")
    status, answer = a.rpc(P + "SendInput", {"process": {"pid": pid}, "input": {"pty": "eA=="}})
    same((status, answer["code"]), (500, "internal"))
    a.ok(P + "CloseStdin", {"process": {"pid": pid}})
    same(s.rest()[-1]["event"]["end"]["status"], "exit status 0")
    same(a.rpc(P + "SendInput", {"process": {"pid": pid}, "input": {"stdin": "eA=="}})[0], 404)


@check("agent")
def closed_standard_input_is_internal(a):
    s = a.start("sleep", "30", tag="closed")
    s.start()
    a.ok(P + "CloseStdin", {"process": {"tag": "closed"}})
    same(a.rpc(P + "SendInput", {"process": {"tag": "closed"}, "input": {"stdin": "eA=="}})[1]["code"], "internal")
    for bad in ({}, {"input": {}}, {"input": {"stdin": "*"}}, {"input": {"stdin": 1}}):
        same(a.rpc(P + "SendInput", {"process": {"tag": "closed"}, **bad})[0], 400)
    a.ok(P + "SendSignal", {"process": {"tag": "closed"}, "signal": "SIGNAL_SIGKILL"})
    same(s.rest()[-1]["event"]["end"]["status"], "signal: killed")


@check("agent")
def no_standard_input_is_dev_null(a):
    same(a.run("wc", "-c", stdin=False)[0].strip(), b"0")


@check("agent")
def much_input_waits_for_the_process(a):
    data = os.urandom(3 << 20)
    s = a.start("sh", "-c", "sleep 1; sha256sum", tag="much")
    s.start()
    a.ok(P + "SendInput", {"process": {"tag": "much"}, "input": {"stdin": base64.b64encode(data).decode()}})
    a.ok(P + "CloseStdin", {"process": {"tag": "much"}})
    has(s.until("stdout", b"\n").decode(), hashlib.sha256(data).hexdigest())
    s.close()


@check("agent")
def input_streams(a):
    data = os.urandom(5 << 20)
    s = a.start("sh", "-c", "sleep 1; sha256sum", tag="stream")
    s.start()
    body = frame({"start": {"process": {"tag": "stream"}}})
    for at in range(0, len(data), 200000):
        body += frame({"data": {"input": {"stdin": base64.b64encode(data[at:at + 200000]).decode()}}})
        body += frame({"keepalive": {}})
    i = a.stream(P + "StreamInput", body)
    same((i.rest(), i.end), ([{}], {}))
    a.ok(P + "CloseStdin", {"process": {"tag": "stream"}})
    has(s.until("stdout", b"\n").decode(), hashlib.sha256(data).hexdigest())
    s.close()
    for bad, code in ((frame({"data": {}}), "invalid_argument"), (frame({"start": {}}), "invalid_argument"),
                      (frame({"start": {"process": {"pid": 99999999}}}), "not_found"), (b"\1\0\0\0\0", "unimplemented")):
        i = a.stream(P + "StreamInput", bad)
        i.rest()
        same(i.end["error"]["code"], code)


@check("agent")
def terminals(a):
    size = {"pty": {"size": {"cols": 0, "rows": 0}}}
    out = a.run("sh", "-c", "stty size; tty >/dev/null && echo tty", **size)[0]
    same(out, b"24 80\r\ntty\r\n")
    s = a.start("sh", tag="term", pty={"size": {"cols": 100, "rows": 30}})
    s.start()
    a.ok(P + "Update", {"process": {"tag": "term"}, "pty": {"size": {"cols": 132, "rows": 50}}})
    a.ok(P + "SendInput", {"process": {"tag": "term"}, "input": {"pty": base64.b64encode(b"stty size\n").decode()}})
    s.until("pty", b"50 132")
    same(a.rpc(P + "CloseStdin", {"process": {"tag": "term"}})[1]["code"], "invalid_argument")
    same(a.rpc(P + "SendInput", {"process": {"tag": "term"}, "input": {"stdin": "eA=="}})[1]["code"], "internal")
    a.ok(P + "SendInput", {"process": {"tag": "term"}, "input": {"pty": base64.b64encode(b"exit 4\n").decode()}})
    same(s.rest()[-1]["event"]["end"]["exitCode"], 4)
    s = a.start("sleep", "30", tag="plain")
    s.start()
    same(a.rpc(P + "Update", {"process": {"tag": "plain"}, "pty": {"size": {"cols": 1, "rows": 1}}})[0], 400)
    a.ok(P + "SendSignal", {"process": {"tag": "plain"}, "signal": "SIGNAL_SIGTERM"})
    same(s.rest()[-1]["event"]["end"]["status"], "signal: terminated")


@check("agent")
def signals_reach_the_group(a):
    s = a.start("sh", "-c", "sleep 100 & wait", tag="group")
    s.start()
    time.sleep(0.2)
    begin = time.time()
    a.ok(P + "SendSignal", {"process": {"tag": "group"}, "signal": "SIGNAL_SIGHUP"})
    s.rest()
    if time.time() - begin > 0.9:
        raise AssertionError("the child was not reached")
    s = a.start("sleep", "100", tag="sig")
    s.start()
    for bad in ("SIGNAL_SIGSEGV", "", 3.5, None, 11):
        same(a.rpc(P + "SendSignal", {"process": {"tag": "sig"}, "signal": bad})[0], 400, f"status of {bad}")
    a.ok(P + "SendSignal", {"process": {"tag": "sig"}, "signal": 9})
    s.rest()
    same(a.rpc(P + "SendSignal", {"process": {"tag": "sig"}, "signal": 9})[1]["code"], "not_found")
    for bad in ({}, {"process": {}}, {"process": {"pid": "x"}}, {"process": {"tag": 1}}, {"process": 4}):
        same(a.rpc(P + "SendSignal", {**bad, "signal": 9})[0], 400)


@check("agent")
def processes_are_listed(a):
    same(a.ok(P + "List", {}), {})
    s = a.start("sleep", "50", tag="listed", process={"envs": {"X": "y"}, "cwd": "/tmp"})
    pid = s.start()
    config = {"cmd": "sleep", "args": ["50"], "envs": {"X": "y"}, "cwd": "/tmp"}
    same(a.ok(P + "List", {}), {"processes": [{"config": config, "pid": pid, "tag": "listed"}]})
    t = a.start("true", tag="listed")
    t.rest()
    same(t.end["error"]["code"], "already_exists")
    a.ok(P + "SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    s.rest()
    same(a.ok(P + "List", {}), {})
    mine = [p for p in a.ok(P + "List", {"all": True})["processes"] if p["pid"] == pid][0]
    same((mine["state"], mine["exitCode"], mine["signal"]), ("ended", -1, 9))
    time.strptime(mine["startedAt"][:19], "%Y-%m-%dT%H:%M:%S")


@check("agent")
def a_client_that_leaves_kills_nothing(a):
    s = a.start("sh", "-c", "sleep 0.5; echo done", tag="left")
    pid = s.start()
    s.close()
    time.sleep(0.2)
    same([p["pid"] for p in a.ok(P + "List", {})["processes"]], [pid])
    c = a.stream(P + "Connect", {"process": {"tag": "left"}})
    same(c.start(), pid)
    c.until("stdout", b"done")
    same(c.rest()[-1]["event"]["end"]["exited"], True)


@check("agent")
def output_is_replayed(a):
    s = a.start("sh", "-c", "echo one; echo two >&2; echo three", tag="replay", since=0)
    pid = s.start()
    seen = s.rest()
    same([int(m["event"]["data"]["seq"]) for m in seen[:-1]][-1], 14)
    c = a.stream(P + "Connect", {"process": {"pid": pid}, "since": 4})
    c.start()
    got = b"".join(base64.b64decode(m["event"]["data"].get("stdout") or m["event"]["data"].get("stderr"))
                   for m in c.rest()[:-1])
    same(sorted(got.split()), [b"three", b"two"])
    c = a.stream(P + "Connect", {"process": {"pid": pid}})
    same([list(m["event"]) for m in c.rest()], [["start"], ["end"]])
    c = a.stream(P + "Connect", {"process": {"pid": pid}, "since": "999"})
    c.rest()
    same(c.end["error"]["code"], "invalid_argument")
    c = a.stream(P + "Connect", {"process": {"tag": "nobody"}})
    c.rest()
    same(c.end["error"]["code"], "not_found")


@check("agent")
def the_ended_are_forgotten_in_their_order(a):
    s = a.start("sleep", "30", tag="long")
    pid = s.start()
    for at in range(0, 280, 20):
        for t in [a.start("true") for _ in range(20)]:
            t.rest()
    a.ok(P + "SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    s.rest()
    for _ in range(20):  # the last ones' turn comes when the loop has told their ends
        ended = a.ok(P + "List", {"all": True})["processes"]
        if len(ended) == 256:
            break
        time.sleep(0.1)
    same(len(ended), 256)
    has([p["pid"] for p in ended], pid)


@check("agent")
def an_end_tells_its_signal_to_those_who_ask(a):
    s = a.start("sh", "-c", "kill -9 $$", since=0)
    same(s.rest()[-1]["event"]["end"]["signal"], 9)


@check("agent")
def deadlines_kill(a):
    begin = time.time()
    s = a.start("sh", "-c", "sleep 100 & sleep 100", headers={"connect-timeout-ms": "500"}, tag="dead")
    pid = s.start()
    same(s.rest(), [])
    same(s.end["error"]["code"], "deadline_exceeded")
    if not 0.4 < time.time() - begin < 3:
        raise AssertionError("at the wrong time")
    time.sleep(0.3)
    same(a.ok(P + "List", {}), {})
    has([(p["pid"], p["signal"]) for p in a.ok(P + "List", {"all": True})["processes"] if "signal" in p], (pid, 9))
    s = a.start("true", headers={"connect-timeout-ms": "soon"})
    s.rest()
    same(s.end["error"]["code"], "invalid_argument")


@check("agent")
def a_viewers_deadline_kills_nothing(a):
    s = a.start("sleep", "1", tag="viewed")
    s.start()
    c = a.stream(P + "Connect", {"process": {"tag": "viewed"}}, connect_timeout_ms="200")
    c.rest()
    same(c.end["error"]["code"], "deadline_exceeded")
    same(s.rest()[-1]["event"]["end"]["status"], "exit status 0")


@check("agent")
def silence_is_broken(a):
    s = a.start("sleep", "2.5", headers={"keepalive-ping-interval": "1"})
    s.start()
    same(s.message(), {"event": {"keepalive": {}}})
    s.rest()


@check("agent")
def children_do_not_hold_the_end(a):
    begin = time.time()
    out, _, end, _ = a.run("sh", "-c", "sleep 20 & echo early")
    same((out, end["status"]), (b"early\n", "exit status 0"))
    if time.time() - begin > 2:
        raise AssertionError(f"{time.time() - begin:.1f} s")


@check("agent")
def much_output_arrives_whole(a):
    out, _, end, _ = a.run("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; exit 7")
    same((len(out), set(out), end["exitCode"]), (20000000, {120}, 7))


@check("agent")
def messages_have_their_sizes(a):
    for more, kind, most in (({}, "stdout", 32768), ({"pty": {"size": {}}}, "pty", 16384)):
        for m in a.start("head", "-c", "300000", "/dev/zero", **more).rest():
            if len(base64.b64decode(m["event"].get("data", {}).get(kind, ""))) > most:
                raise AssertionError("a message is too large")


@check("agent")
def a_slow_starter_slows_the_process(a):
    s = a.start("sh", "-c", "head -c 30000000 /dev/zero; echo END >&2", tag="slow")
    s.start()
    time.sleep(1)
    same([p["tag"] for p in a.ok(P + "List", {})["processes"]], ["slow"])
    rss = int(open(f"/proc/{a.process.pid}/statm").read().split()[1]) * 4096 if a.process else 0
    got = b""
    for m in s.rest():
        got += base64.b64decode(m["event"].get("data", {}).get("stdout", ""))
    same(len(got), 30000000)
    if rss > 300 << 20:
        raise AssertionError(f"the agent took {rss >> 20} MiB")


@check("agent")
def a_slow_viewer_sees_gaps_and_slows_nobody(a):
    s = a.start("sh", "-c", "sleep 0.5; head -c 12000000 /dev/zero; echo LAST", tag="seen")
    s.start()
    c = a.stream(P + "Connect", {"process": {"tag": "seen"}, "since": 0})
    c.start()
    begin = time.time()
    s.rest()
    if time.time() - begin > 20:
        raise AssertionError("it was slowed")
    at, gaps, got = 0, 0, b""
    for m in c.rest():
        event = m["event"]
        if "gap" in event:
            same(int(event["gap"]["from"]), at, "the gap's beginning")
            at, gaps = int(event["gap"]["to"]), gaps + 1
        elif "data" in event:
            got = base64.b64decode(event["data"]["stdout"])
            at += len(got)
            same(int(event["data"]["seq"]), at, "seq")
    same((at, got[-5:]), (12000005, b"LAST\n"))
    if not gaps:
        raise Skip("the viewer kept up")


@check("agent")
def many_at_once(a):
    streams = [a.start("sh", "-c", f"sleep 0.2; echo {n}") for n in range(40)]
    for n, s in enumerate(streams):
        has(s.until("stdout", b"\n").decode(), str(n))
        s.close()


# ---- files ----


def put(a, path, data, query="", **headers):
    return a.call("POST", f"/files?path={path}{query}", data, {"content-type": "application/octet-stream", **headers})


@check("agent")
def a_file_goes_and_comes(a):
    data = os.urandom(20 << 20)
    path = f"{a.dir}/deep/er/file.bin"
    status, _, body = put(a, path, data)
    same((status, json.loads(body)), (200, [{"name": "file.bin", "path": path, "type": "file"}]))
    same(oct(os.stat(path).st_mode), "0o100644")
    status, headers, got = a.call("GET", f"/files?path={path}")
    same((status, got == data), (200, True))
    same((headers["content-length"], headers["accept-ranges"]), (str(len(data)), "bytes"))
    same(headers["content-disposition"], "inline; filename=file.bin")
    has(headers["last-modified"], "gmt")
    same(os.listdir(f"{a.dir}/deep/er"), ["file.bin"])


@check("agent")
def ranges(a):
    put(a, f"{a.dir}/r", b"0123456789")
    for text, status, part in (("bytes=2-4", 206, b"234"), ("bytes=7-", 206, b"789"), ("bytes=-3", 206, b"789"),
                               ("bytes=0-99", 206, b"0123456789"), ("bytes=-99", 206, b"0123456789"),
                               ("bytes=10-", 416, b""), ("bytes=-0", 416, b""), ("bytes=4-2", 200, b"0123456789"),
                               ("bytes=1-2,4-5", 200, b"0123456789"), ("bytes=x", 200, b"0123456789"),
                               ("bytes=99999999999999999999-", 200, b"0123456789")):
        got = a.call("GET", f"/files?path={a.dir}/r", headers={"range": text})
        same((got[0], got[2]), (status, part), text)
    same(a.call("GET", f"/files?path={a.dir}/r", headers={"range": "bytes=2-4"})[1]["content-range"], "bytes 2-4/10")


@check("agent")
def empty_files(a):
    same(put(a, f"{a.dir}/empty", b"")[0], 200)
    status, headers, body = a.call("GET", f"/files?path={a.dir}/empty")
    same((status, headers["content-length"], body), (200, "0", b""))


@check("agent")
def files_of_unknown_size(a):
    status, _, body = a.call("GET", "/files?path=/proc/self/status")
    same(status, 200)
    has(body.decode(), "hutch-guest")


@check("agent")
def what_cannot_be_read(a):
    os.mkfifo(f"{a.dir}/fifo")
    same(a.call("GET", f"/files?path={a.dir}")[0], 400)
    same(a.call("GET", f"/files?path={a.dir}/fifo")[0], 400)
    same(a.call("GET", f"/files?path={a.dir}/none")[0], 404)
    same(a.call("GET", f"/files?path=~nobody/x")[0], 400)
    same(a.call("GET", f"/files?path=/etc/hostname&username=nobody-here")[0], 401)
    same(a.call("GET", f"/files?path=/{'x' * 5000}")[0], 400)
    same(a.call("GET", f"/files?path=%zz")[0], 400)


@check("agent")
def what_cannot_be_written(a):
    os.mkdir(f"{a.dir}/there")
    open(f"{a.dir}/plain", "w").close()
    same(put(a, f"{a.dir}/there", b"x")[0], 400)
    same(put(a, f"{a.dir}/fifo", b"x")[0], 400)
    same(put(a, f"{a.dir}/plain/below", b"x")[0], 400)
    same(put(a, "", b"x")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", "&username=nobody-here")[0], 401)
    same(put(a, f"{a.dir}/x", b"x", "&mode=9")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", "&mtime=x")[0], 400)
    same(put(a, f"{a.dir}/x", b"x", **{"content-encoding": "gzip"})[0], 415)
    same(put(a, f"{a.dir}/x", b"x", **{"content-type": "text/plain"})[0], 415)
    same(put(a, f"{a.dir}/x", os.urandom(1 << 20), "&username=nobody-here")[0], 401)
    same(os.path.exists(f"{a.dir}/x"), False)
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


@check("agent")
def modes_and_conditions(a):
    path = f"{a.dir}/moded"
    put(a, path, b"1", "&mode=750&mtime=1000000000")
    st = os.stat(path)
    same((oct(st.st_mode & 0o7777), int(st.st_mtime)), ("0o750", 1000000000))
    put(a, path, b"2")
    same(oct(os.stat(path).st_mode & 0o7777), "0o750")
    same(put(a, path, b"3", "&if_absent=1")[0], 409)
    same(open(path).read(), "2")
    os.symlink(path, f"{a.dir}/link")
    put(a, f"{a.dir}/link", b"4")
    same((open(path).read(), os.path.islink(f"{a.dir}/link")), ("4", True))


@check("agent")
def metadata_is_kept(a):
    path = f"{a.dir}/meta"
    try:
        open(path, "w").close()
        os.setxattr(path, "user.e2b.old", b"x")
    except OSError:
        raise Skip("no extended attributes here")
    body = json.loads(put(a, path, b"x", **{"X-Metadata-Color": "blue", "X-Metadata-Size": "big \\ \""})[2])
    same(body[0]["metadata"], {"color": "blue", "size": 'big \\ "'})
    same(a.ok(F + "Stat", {"path": path})["entry"]["metadata"], {"color": "blue", "size": 'big \\ "'})


def multipart(parts, boundary="XbX"):
    body = b"preamble\r\n"
    for name, filename, data in parts:
        f = f'; filename="{filename}"' if filename is not None else ""
        body += f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"{f}\r\nContent-Type: a/b\r\n\r\n'.encode()
        body += data + b"\r\n"
    return body + f"--{boundary}--\r\nepilogue".encode()


def post_parts(a, query, parts, body=None):
    return a.call("POST", "/files" + query, multipart(parts) if body is None else body,
                  {"content-type": "multipart/form-data; boundary=XbX"})


@check("agent")
def multipart_uploads(a):
    tricky = b"\r\n--Xb\r\n--XbY\r\n-" * 50000 + os.urandom(300000)
    parts = [("note", None, b"ignored"), ("file", f"{a.dir}/m/one", tricky), ("file", f"{a.dir}/m/two", b"")]
    status, _, body = post_parts(a, "", parts)
    same((status, [e["name"] for e in json.loads(body)]), (200, ["one", "two"]))
    same((open(f"{a.dir}/m/one", "rb").read() == tricky, open(f"{a.dir}/m/two").read()), (True, ""))
    same(post_parts(a, f"?path={a.dir}/m/three", [("file", "whatever", b"3")])[0], 200)
    same(open(f"{a.dir}/m/three").read(), "3")


@check("agent")
def bad_multipart(a):
    one = ("file", f"{a.dir}/bm", b"1")
    same(post_parts(a, "", [one, one])[0], 400)
    same(post_parts(a, f"?path={a.dir}/bm2", [one, one])[0], 400)
    same(post_parts(a, "", [("file", None, b"1")])[0], 400)
    same(post_parts(a, "", [("other", "x", b"1")])[0], 400)
    same(post_parts(a, "", [])[0], 400)
    for cut in (b"", b"--XbX", b"--XbX\r\n", multipart([one])[:-14], b"--XbXjunk\r\n\r\n",
                b"--XbX\r\n" + b"h" * 20000, b"nothing at all"):
        same(post_parts(a, "", None, cut)[0], 400, f"status of {cut[:30]}")
    same(a.call("POST", "/files", b"x", {"content-type": "multipart/form-data"})[0], 400)
    same(a.call("POST", "/files", b"x", {"content-type": "multipart/form-data; boundary=" + "b" * 90})[0], 400)
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


@check("agent")
def a_lost_upload_leaves_the_old_file(a):
    path = f"{a.dir}/lost"
    open(path, "w").write("old")
    p = subprocess.Popen(a.curl(f"/files?path={path}", {"content-type": "application/octet-stream"}, "-T", "-", "-X",
                                "POST"), stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    p.stdin.write(b"n" * 300000)
    p.stdin.flush()
    time.sleep(0.4)
    same(len([n for n in os.listdir(a.dir) if n.startswith(".hutch")]), 1)
    p.kill()
    p.wait()
    time.sleep(0.3)
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])
    same(open(path).read(), "old")


@check("agent")
def a_full_disk_is_507(a):
    small = f"{a.dir}/small"
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", small], stderr=subprocess.DEVNULL).returncode:
        raise Skip("may not mount")
    try:
        put(a, small + "/f", b"old")
        status, _, body = put(a, small + "/f", b"n" * (3 << 20))
        same((status, json.loads(body)["code"]), (507, 507))
        same((open(small + "/f").read(), os.listdir(small)), ("old", ["f"]))
    finally:
        subprocess.run(["umount", small])


@check("agent")
def names_of_all_kinds(a):
    for name, quoted in (("a b+c", "a%20b%2Bc"), ("naïve ☃", "na%C3%AFve+%E2%98%83"), ('q"\\', "q%22%5C"), ("new\nline", "new%0Aline")):
        same(put(a, f"{a.dir}/{quoted}", name.encode())[0], 200)
        same(open(f"{a.dir}/{name}").read(), name)
        same(a.call("GET", f"/files?path={a.dir}/{quoted}")[2], name.encode())
    same(a.call("GET", f"/files?path={a.dir}/na%C3%AFve+%E2%98%83")[1]["content-disposition"],
         "inline; filename*=utf-8''na%c3%afve%20%e2%98%83")


# ---- filesystem ----


@check("agent")
def stat_shows_entries(a):
    d = f"{a.dir}/st"
    os.mkdir(d)
    open(d + "/f", "w").write("12345")
    os.chmod(d + "/f", 0o4751)
    os.symlink("f", d + "/l")
    os.symlink("gone", d + "/b")
    os.mkfifo(d + "/p")
    e = a.ok(F + "Stat", {"path": d + "/f"})["entry"]
    same({k: e[k] for k in ("name", "type", "path", "size", "mode", "permissions", "owner")},
         {"name": "f", "type": "FILE_TYPE_FILE", "path": d + "/f", "size": "5", "mode": 0o4751,
          "permissions": "urwxr-x--x", "owner": ME.pw_name})
    if not re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", e["modifiedTime"]):
        raise AssertionError(e["modifiedTime"])
    e = a.ok(F + "Stat", {"path": d})["entry"]
    same((e["type"], e["permissions"][0]), ("FILE_TYPE_DIRECTORY", "d"))
    e = a.ok(F + "Stat", {"path": d + "/l"})["entry"]
    same((e["type"], e["mode"], e["permissions"], e["symlinkTarget"]), ("FILE_TYPE_FILE", 0o4751, "Lrwxrwxrwx", "f"))
    e = a.ok(F + "Stat", {"path": d + "/b"})["entry"]
    same(("type" in e, e["symlinkTarget"]), (False, "gone"))
    e = a.ok(F + "Stat", {"path": d + "/p"})["entry"]
    same(("type" in e, e["kind"], e["permissions"][0]), (False, "fifo", "p"))
    same(a.ok(F + "Stat", {"path": "/tmp/../"})["entry"]["path"], "/")
    same(a.ok(F + "Stat", {"path": "~"})["entry"]["path"], os.path.normpath(ME.pw_dir))
    same(a.rpc(F + "Stat", {"path": d + "/none"})[1]["code"], "not_found")
    for bad in ({"path": 1}, {"path": "~x"}, {"path": "/" + "x" * 5000}):
        same(a.rpc(F + "Stat", bad)[0], 400)


@check("agent")
def directories_are_made(a):
    d = f"{a.dir}/mk/a/b"
    same(a.ok(F + "MakeDir", {"path": d})["entry"]["type"], "FILE_TYPE_DIRECTORY")
    same(oct(os.stat(d).st_mode & 0o777), "0o755")
    same(a.rpc(F + "MakeDir", {"path": d})[1]["code"], "already_exists")
    open(d + "/f", "w").close()
    same(a.rpc(F + "MakeDir", {"path": d + "/f"})[1]["code"], "invalid_argument")
    same(a.rpc(F + "MakeDir", {"path": d + "/f/g"})[1]["code"], "invalid_argument")


@check("agent")
def moves(a):
    d = f"{a.dir}/mv"
    os.mkdir(d)
    open(d + "/a", "w").write("a")
    same(a.ok(F + "Move", {"source": d + "/a", "destination": d + "/x/y/b"})["entry"]["path"], d + "/x/y/b")
    open(d + "/c", "w").write("c")
    answer = a.rpc(F + "Move", {"source": d + "/c", "destination": d + "/x/y/b", "overwrite": False})
    same(answer[1]["code"], "already_exists")
    a.ok(F + "Move", {"source": d + "/c", "destination": d + "/x/y/b"})
    same(open(d + "/x/y/b").read(), "c")
    same(a.rpc(F + "Move", {"source": d + "/none", "destination": d + "/z"})[1]["code"], "not_found")
    same(a.rpc(F + "Move", {"source": d + "/x", "destination": d + "/x/y/z"})[1]["code"], "invalid_argument")


@check("agent")
def removals(a):
    d = f"{a.dir}/rm"
    os.makedirs(d + "/a/b/c")
    for n in range(300):
        open(f"{d}/a/b/{n}", "w").close()
    os.mkdir(a.dir + "/kept")
    open(a.dir + "/kept/f", "w").close()
    os.symlink(a.dir + "/kept", d + "/a/link")
    same(a.ok(F + "Remove", {"path": d}), {})
    same((os.path.exists(d), os.path.exists(a.dir + "/kept/f")), (False, True))
    same(a.ok(F + "Remove", {"path": d}), {})
    same(a.rpc(F + "Remove", {"path": d, "must_exist": True})[1]["code"], "not_found")
    same(a.rpc(F + "Remove", {"path": "/"})[1]["code"], "invalid_argument")
    same(a.rpc(F + "Remove", {"path": "/tmp/.."})[1]["code"], "invalid_argument")


@check("agent")
def listings(a):
    d = f"{a.dir}/ls"
    os.makedirs(d + "/b/deep")
    open(d + "/a", "w").close()
    open(d + "/b/inner", "w").close()
    os.symlink(d, d + "/b/loop")
    names = lambda **m: [e["path"][len(d):] for e in a.ok(F + "ListDir", {"path": d, **m})["entries"]]
    same(names(), ["/a", "/b"])
    same(names(depth=0), ["/a", "/b"])
    same(names(depth=2), ["/a", "/b", "/b/deep", "/b/inner", "/b/loop"])
    same(names(depth=32), ["/a", "/b", "/b/deep", "/b/inner", "/b/loop"])
    answer = a.ok(F + "ListDir", {"path": d, "depth": 2, "limit": 3})
    same((len(answer["entries"]), answer["truncated"]), (3, True))
    same(a.ok(F + "ListDir", {"path": d + "/b/deep"}), {})
    same(a.rpc(F + "ListDir", {"path": d + "/none"})[1]["code"], "not_found")
    same(a.rpc(F + "ListDir", {"path": d + "/a"})[1]["code"], "invalid_argument")
    for bad in ({"depth": 33}, {"depth": -1}, {"depth": "x"}, {"limit": 0}):
        same(a.rpc(F + "ListDir", {"path": d, **bad})[0], 400)
    if "/" not in [e["path"] for e in a.ok(F + "ListDir", {"path": "/", "depth": 1})["entries"]]:
        has([e["path"] for e in a.ok(F + "ListDir", {"path": "/"})["entries"]], "/etc")


@check("agent")
def work_is_done_as_the_user(a):
    if os.geteuid() != 0:
        raise Skip("needs root")
    os.chmod(a.dir, 0o755)
    secret, shared = f"{a.dir}/secret", f"{a.dir}/shared"
    put(a, secret, b"s", "&mode=600")
    os.mkdir(shared)
    os.chmod(shared, 0o777)
    auth = {"authorization": "Basic " + base64.b64encode(b"nobody:").decode()}
    same(a.call("GET", f"/files?path={secret}&username=nobody")[0], 403)
    same(put(a, secret, b"x", "&username=nobody")[0], 403)
    same(put(a, f"{a.dir}/new", b"x", "&username=nobody")[0], 403)
    same(put(a, f"{shared}/a/b", b"x", "&username=nobody")[0], 200)
    same({os.stat(p).st_uid for p in (f"{shared}/a", f"{shared}/a/b")}, {pwd.getpwnam("nobody").pw_uid})
    same(a.rpc(F + "Remove", {"path": secret}, **auth)[1]["code"], "permission_denied")
    same(a.rpc(F + "ListDir", {"path": "/root"}, **auth)[1]["code"], "permission_denied")
    same(put(a, f"{shared}/r", b"x", "&username=nobody&owner=root")[0], 403)
    same(put(a, f"{shared}/r", b"x", "&owner=nobody")[0], 200)
    has(a.sh("id; cat " + secret, headers=auth, process={"cwd": "/"}), "nobody")
    has(a.sh("cat " + secret, headers=auth, process={"cwd": "/"}), "ermission denied")
    same(os.stat(secret).st_uid, 0)


# ---- the session ----


@check("agent")
def broken_sessions_harm_nobody(a):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, preface[:10], preface + b"\xff" * 100,
                 preface + b"\0\0\0\4\0\0\0\0\0" + os.urandom(5000), b""):
        s = socket.socket(socket.AF_UNIX)
        s.connect(a.path)
        s.sendall(junk)
        s.shutdown(socket.SHUT_WR)
        s.settimeout(5)
        try:
            while s.recv(65536):
                pass
        except ConnectionError:
            pass
        s.close()
    same(a.call("GET", "/health")[0], 204)


def raw_call(path, stream=1):
    """A session's first bytes and one GET, without curl: preface, SETTINGS, HEADERS (literal)."""
    block = b"\x82\x86\x41\x05guest\x04" + bytes([len(path)]) + path.encode()
    return (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" +
            struct.pack(">I", len(block))[1:] + b"\1\5" + struct.pack(">I", stream) + block)


def answers(s):
    """How many responses come within a moment."""
    s.settimeout(1)
    got = b""
    try:
        while data := s.recv(65536):
            got += data
    except (TimeoutError, ConnectionError):
        pass
    n = 0
    while len(got) >= 9:
        length, kind = int.from_bytes(got[:3], "big"), got[3]
        n += kind == 1
        got = got[9 + length:]
    return n


@check("agent")
def a_second_preface_begins_anew(a):
    s = socket.socket(socket.AF_UNIX)
    s.connect(a.path)
    for _ in range(3):
        s.sendall(raw_call("/health"))
        same(answers(s), 1)
    s.close()


@check("agent")
def a_preface_in_a_body_is_data(a):
    s = socket.socket(socket.AF_UNIX)
    s.connect(a.path)
    inner = raw_call("/health")
    block = b"\x83\x86\x41\x05guest\x04\x05/init"
    s.sendall(raw_call("/health") + struct.pack(">I", len(block))[1:] + b"\1\4\0\0\0\3" + block +
              struct.pack(">I", len(inner) + 10)[1:] + b"\0\0\0\0\0\3" + b"{" * 10)
    same(answers(s), 1)
    s.sendall(inner)  # a read of its own, as the port would give it
    same(answers(s), 0)
    s.sendall(b"\0\0\1\0\1\0\0\0\3}")
    same(answers(s), 1)
    s.close()


@check("agent")
def a_new_epoch_replaces_all(a):
    a.epoch = 4
    same(a.init(envVars={"Z": "z"}, machineId="0" * 32)[0], 204)
    same(a.ok(P + "List", {"all": True}), {})
    envs = json.loads(a.call("GET", "/envs")[2])
    same((envs.get("A"), envs["Z"], "E2B_SANDBOX_ID" in envs), (None, "z", False))
    a.epoch = 5
    same(a.init(accessToken="another")[0], 204)
    same(a.call("GET", "/envs")[0], 401)
    same(a.call("GET", "/envs", headers={"x-access-token": "another"})[0], 200)
    a.epoch = 6
    same(a.init()[0], 204)


# ---- in a machine ----


@check("machine")
def it_boots(m):
    begin = time.time()
    while time.time() - begin < 60:
        try:
            if m.call("GET", "/health", more=("--max-time", "1"))[0] == 204:
                print(f"# {time.time() - m.begin:.1f} s from qemu to health", flush=True)
                return
        except (AssertionError, IndexError, ValueError):
            time.sleep(0.1)
    raise AssertionError("no answer in 60 s")


@check("machine")
def init_gives_it_an_identity(m):
    m.epoch = 1
    same(m.init(defaultUser="root", defaultWorkdir="/root", hostname="blue", machineId="ab" * 16,
                timestamp=time.time_ns(), entropy=base64.b64encode(os.urandom(64)).decode())[0], 204)
    lines = m.sh("hostname; cat /etc/machine-id; pwd; id -un; getent hosts blue | wc -l").split()
    same(lines, ["blue", "ab" * 16, "/root", "root", "1"])
    same(len(m.sh("cat /proc/sys/kernel/random/boot_id").strip()), 36)


@check("machine")
def its_clock_is_right(m):
    ahead = float(m.sh("date +%s.%N")) - time.time()
    if abs(ahead) > 5:
        raise AssertionError(f"{ahead:.1f} s ahead")


@check("machine")
def it_has_what_the_recipe_says(m):
    out = m.sh("for c in bash sudo git curl tar gzip xz python3 python ip ps; do command -v $c >/dev/null || echo no $c; done")
    same(out, "")
    has(m.sh("python -c 'print(6*7)'"), "42")
    auth = {"authorization": "Basic " + base64.b64encode(b"user:").decode()}
    same(m.sh("id -u; sudo id -u; echo $HOME; pwd", headers=auth).split(), ["1000", "0", "/home/user", "/home/user"])


@check("machine")
def its_mounts_are_there(m):
    out = m.sh("mount; ls -ld /tmp /dev/shm /dev/fd; ip -o addr; cat /etc/resolv.conf; cat /proc/1/oom_score_adj")
    for part in ("overlay on / ", "devpts on /dev/pts", "/dev/shm type tmpfs", "proc on /proc", "drwxrwxrwt", "10.0.2.15/24",
                 "127.0.0.1/8", "10.0.2.3", "-1000"):
        has(out, part)
    same(m.sh("df --output=source /tmp | tail -1").strip(), "overlay")


@check("machine")
def directories_of_the_image_can_be_moved(m):
    m.ok(F + "Move", {"source": "/usr/share/git-core", "destination": "/usr/share/git-moved"})
    m.ok(F + "Move", {"source": "/usr/share/git-moved", "destination": "/usr/share/git-core"})


@check("machine")
def orphans_are_reaped(m):
    m.sh("(sh -c 'sleep 0.1 & sleep 0.1 & exit' &)")
    time.sleep(1)
    same(m.sh("ps -eo stat | grep -c Z").strip(), "0")


@check("machine")
def its_disk_is_grown(m):
    size = int(m.sh("df --output=size -B1M / | tail -1"))
    if size < 6500:
        raise AssertionError(f"{size} MB of a disk of 8 GiB")


@check("machine")
def a_lost_host_is_forgotten(m):
    p = subprocess.Popen(m.curl("/files?path=/dev/null", {}), stdout=subprocess.DEVNULL)
    s = m.start("sh", "-c", "head -c 50000000 /dev/zero; sleep 1", tag="big")
    s.start()
    s.message()
    s.close()  # in the middle of a frame
    p.wait()
    begin, status = time.time(), 0
    while status != 204:
        if time.time() - begin > 5:
            raise AssertionError("it does not come back")
        try:  # what the old session still had to say may break the first new one
            status = m.call("GET", "/health", more=("--max-time", "2"))[0]
        except AssertionError:
            pass
    for _ in range(5):
        same(m.call("GET", "/health")[0], 204)


@check("machine")
def bytes_go_through_the_port_whole(m):
    data = os.urandom(30 << 20)
    begin = time.time()
    same(put(m, "/root/big", data)[0], 200)
    middle = time.time()
    same(m.call("GET", "/files?path=/root/big")[2] == data, True)
    print(f"# 30 MB up {30 / (middle - begin):.0f} MB/s, down {30 / (time.time() - middle):.0f} MB/s", flush=True)


@check("machine")
def it_idles_without_a_host(m):
    ticks = lambda: sum(map(int, open(f"/proc/{m.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]))
    m.call("GET", "/health")
    time.sleep(1)
    before = ticks()
    time.sleep(3)
    percent = (ticks() - before) / os.sysconf("SC_CLK_TCK") / 3 * 100
    print(f"# {percent:.1f} % of a core while nobody is connected", flush=True)
    if percent > 25:
        raise AssertionError(f"{percent:.0f} % of a core")


@check("machine")
def a_host_that_comes_is_answered_at_once(m):
    times = []
    for _ in range(20):
        time.sleep(0.1)
        begin = time.time()
        same(m.call("GET", "/health")[0], 204)
        times.append(time.time() - begin)
    median = sorted(times)[10]
    print(f"# {median * 1000:.0f} ms from connecting to the answer, with curl's own start", flush=True)
    if median > 0.3:
        raise AssertionError(f"{median * 1000:.0f} ms")


@check("machine")
def another_identity_is_another_machine(m):
    before = m.sh("cat /proc/sys/kernel/random/boot_id")
    m.epoch = 2
    same(m.init(defaultUser="user", hostname="red", machineId="cd" * 16, timestamp=time.time_ns())[0], 204)
    same(m.sh("cat /proc/sys/kernel/random/boot_id") == before, False)
    same(m.sh("hostname; cat /etc/machine-id; id -un").split(), ["red", "cd" * 16, "user"])


@check("machine")
def services_hear_of_it(m):
    put(m, "/etc/hutch/resume.d/10-note", b"#!/bin/sh\necho heard >/run/heard\n", "&mode=755&username=root")
    put(m, "/etc/hutch/resume.d/20-slow", b"#!/bin/sh\nsleep 60\n", "&mode=755&username=root")
    m.epoch = 3
    begin = time.time()
    same(m.init(defaultUser="root", timestamp=time.time_ns())[0], 204)
    same(m.sh("cat /run/heard"), "heard\n")
    if not 1.5 < time.time() - begin < 6:
        raise AssertionError(f"{time.time() - begin:.1f} s")
    m.ok(F + "Remove", {"path": "/etc/hutch/resume.d/20-slow"})


# ---- the runner ----


def agent_start(program, folder):
    a = Agent(folder + "/agent.sock")
    a.dir = folder
    a.process = subprocess.Popen([program, "--listen-unix", a.path], stderr=open(folder + "/agent.log", "wb"))
    for _ in range(100):
        if os.path.exists(a.path):
            return a
        time.sleep(0.05)
    sys.exit("guest_test.py: the agent did not start")


def tsc_khz():
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return int(float(line.split(":")[1]) * 1000)
    return 2000000


def machine_start(images, folder):
    t = os.path.realpath(images + "/minimal")
    m = Agent(folder + "/port.sock")
    disk = folder + "/disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", t + "/upper.qcow2", disk, "8G"],
                   check=True)
    append = (f"console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz={tsc_khz()} tsc=reliable mitigations=off nokaslr "
              "lsm=none apparmor=0 audit=0 cryptomgr.notests groot=/dev/vdb glower=/dev/vda")
    m.begin = time.time()
    m.process = subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
         "-M", "microvm,x-option-roms=off,rtc=on,pic=off,pit=off", "-cpu", "max", "-accel", "tcg,thread=multi",
         "-m", "512", "-smp", "1", "-global", "virtio-mmio.force-legacy=false",
         "-kernel", t + "/vmlinux", "-initrd", t + "/initramfs.cpio", "-append", append,
         "-blockdev", f"driver=raw,node-name=d0,read-only=on,file.driver=file,file.filename={t}/rootfs.erofs",
         "-device", "virtio-blk-device,drive=d0",
         "-blockdev", f"driver=qcow2,node-name=d1,file.driver=file,file.filename={disk}",
         "-device", "virtio-blk-device,drive=d1",
         "-chardev", f"socket,id=port,path={m.path},server=on,wait=off", "-device", "virtio-serial-device",
         "-device", "virtserialport,chardev=port,name=hutch.0", "-device", "virtio-rng-device",
         "-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-device,netdev=n0",
         "-serial", f"file:{folder}/serial.log"], stdin=subprocess.DEVNULL, stderr=open(folder + "/qemu.log", "wb"))
    return m


def run(checks, target, tally):
    for function in checks:
        name = function.__name__.replace("_", " ")
        try:
            function(target)
        except Skip as why:
            tally["skipped"] += 1
            print(f"skip {name}: {why}", flush=True)
        except Exception as why:  # whatever it is, the next check has its turn
            tally["failed"] += 1
            print(f"not ok {name}: {type(why).__name__}: {why}", flush=True)
        else:
            tally["passed"] += 1
            print(f"ok {name}", flush=True)


def agent_part(options, checks, folder, tally):
    a = agent_start(options.agent, folder)
    run(checks, a, tally)
    a.process.send_signal(signal.SIGTERM)
    status = a.process.wait(10)
    log = open(folder + "/agent.log", errors="replace").read()
    if status or "Sanitizer" in log or "runtime error" in log:
        tally["failed"] += 1
        print(f"not ok the agent ends well: status {status}\n{log[-4000:]}")
    else:
        tally["passed"] += 1
        print("ok the agent ends well")


def machine_part(options, checks, folder, tally):
    if not options.images or not os.path.exists(options.images + "/minimal/template.json"):
        why = "no images (--images DIR)"
    elif not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"):
        why = "no QEMU"
    else:
        m = machine_start(options.images, folder)
        try:
            run(checks, m, tally)
            if tally["failed"]:
                print("# " + open(folder + "/serial.log", errors="replace").read()[-1500:].replace("\n", "\n# "))
        finally:
            m.process.kill()
            m.process.wait()
        return
    tally["skipped"] += len(checks)
    print(f"skip all checks in a machine: {why}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--agent", default=os.environ.get("HUTCH_GUEST_TEST", "guestagent/hutch-guest-test"))
    parser.add_argument("--images", default=os.environ.get("HUTCH_IMAGES", ""))
    parser.add_argument("--only", default="", help="checks whose name has this word, and those that begin a part")
    parser.add_argument("--part", default="agent,machine")
    options = parser.parse_args()
    tally = {"passed": 0, "failed": 0, "skipped": 0}
    first = ("init_opens_the_agent", "it_boots", "init_gives_it_an_identity")
    wanted = [(w, f) for w, f in CHECKS if options.only in f.__name__ or f.__name__ in first]
    with tempfile.TemporaryDirectory(prefix="guest-test.") as folder:
        for part, run_part in (("agent", agent_part), ("machine", machine_part)):
            if part in options.part:
                run_part(options, [f for w, f in wanted if w == part], folder, tally)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**tally))
    sys.exit(1 if tally["failed"] else 0)


if __name__ == "__main__":
    main()
