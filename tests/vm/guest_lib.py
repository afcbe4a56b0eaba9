"""guest_lib.py - what the checks of the guest agent share: calls by curl, streams, comparisons."""
import base64
import json
import os
import pwd
import struct
import subprocess
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


def memory(a):
    """Bytes of RAM that the agent has."""
    with open(f"/proc/{a.process.pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) * 1024


def same(got, want, what="value"):
    if got != want:
        raise AssertionError(f"{what} is {got!r}, not {want!r}")


def has(text, part):
    if part not in text:
        raise AssertionError(f"{part!r} is not in {str(text)[:300]!r}")


def until(what, test, seconds=120):
    """What test says, as soon as it is true; the deadline is for what never comes."""
    end = time.monotonic() + seconds
    while not (got := test()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)
    return got


def listens(pid, port):
    """Whether the listener of this port is a socket of this process, not of another one."""
    try:
        own = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    except OSError:  # it ended, or a descriptor closed: asked again
        return False
    with open("/proc/net/tcp") as f:
        rows = [line.split() for line in f][1:]
    return any(r[1].endswith(f":{port:04X}") and r[3] == "0A" and f"socket:[{r[9]}]" in own for r in rows)


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
        args = ["curl", "-s", "--http2-prior-knowledge", "--unix-socket", self.path, "--max-time", "300"]
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
