"""sockets.py - a small WebSocket client (RFC 6455) for the tests of streams. No test by itself."""
import base64
import hashlib
import json
import os
import re
import select
import signal
import socket
import struct
import time
from urllib.parse import urlsplit

GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def gateway():
    """The pid of the instance's gateway, its master."""
    with open(os.path.join(os.environ["HUTCH_RUN"], "pid", "gateway")) as f:
        return int(f.read().split()[0])


def processes(pid):
    """The children of a master."""
    with open("/proc/%d/task/%d/children" % (pid, pid)) as f:
        return [int(p) for p in f.read().split()]


def accepts(pid):
    """Whether a process of the gateway still takes new connections."""
    with open("/proc/net/unix") as f:
        listening = {line.split()[6] for line in f if line.split()[3] == "00010000"}
    try:
        links = [os.readlink("/proc/%d/fd/%s" % (pid, fd)) for fd in os.listdir("/proc/%d/fd" % pid)]
    except OSError:  # it goes just now, or closes what we look at: the next look knows more
        return os.path.exists("/proc/%d/fd/0" % pid)
    return any(link[8:-1] in listening for link in links if link.startswith("socket:["))


def setting(name, value):
    """A setting of the gateway, for its new processes: open streams stay with the old ones. None: the default.

    The file is replaced: others read it at any time. Returns when only new processes take connections.
    """
    path, old = os.environ["HUTCH_CONF"], processes(gateway())
    with open(path) as f:
        text = re.sub(r"(?m)^%s = .*\n" % name, "", f.read())
    if value is not None:
        text = re.sub(r"(?m)^gateway \{\n", lambda m: m.group(0) + "%s = %s\n" % (name, value), text)
    was = os.stat(path)
    with open(path + ".new", "w") as f:
        os.fchown(f.fileno(), was.st_uid, was.st_gid)
        os.fchmod(f.fileno(), was.st_mode & 0o7777)
        f.write(text)
    os.replace(path + ".new", path)
    os.kill(gateway(), signal.SIGHUP)
    end = time.time() + 60
    while any(accepts(p) for p in old):
        assert time.time() < end, "old processes of the gateway still take connections"
        time.sleep(0.05)


class Closed(Exception):
    def __init__(self, code, reason=""):
        super().__init__("closed %s %s" % (code, reason))
        self.code, self.reason = code, reason


class Socket:
    """status is 101, or what the server answered instead, with its body."""

    def __init__(self, url, path, headers=None, timeout=90, receive_buffer=None):
        at = urlsplit(url)  # unix:/path, too
        self.s = socket.socket(socket.AF_UNIX if at.scheme == "unix" else socket.AF_INET)
        if receive_buffer:
            self.s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.s.settimeout(timeout)
        self.s.connect(at.path if at.scheme == "unix" else (at.hostname, at.port or 80))
        key = base64.b64encode(os.urandom(16))
        lines = ["GET %s HTTP/1.1" % path, "Host: %s" % (at.netloc or "hutch.test"), "Upgrade: websocket", "Connection: Upgrade",
                 "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + key.decode()]
        lines += ["%s: %s" % item for item in (headers or {}).items()]
        self.s.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        self.data, self.timeout, self.code, self.pings, self.pong = b"", timeout, None, 0, True
        head = self.until(b"\r\n\r\n").decode()
        self.status = int(head.split()[1])
        self.head = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        if self.status != 101:
            n = int(self.head.get("content-length", 0))
            while len(self.data) < n:
                self.more()
            self.body = self.data[:n]
            self.s.close()
            return
        want = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        assert self.head["sec-websocket-accept"] == want, self.head

    def more(self, end=None):
        if end is not None:
            left = end - time.time()
            if left <= 0 or not select.select([self.s], [], [], left)[0]:
                raise TimeoutError
        got = self.s.recv(1 << 18)
        if not got:
            raise Closed(1006)
        self.data += got

    def until(self, mark):
        while mark not in self.data:
            self.more()
        head, _, self.data = self.data.partition(mark)
        return head

    def frame(self, end):
        def need(n):
            while len(self.data) < n:
                self.more(end)
        need(2)
        n, at = self.data[1] & 127, 2
        if n > 125:
            size = 2 if n == 126 else 8
            need(2 + size)
            n, at = int.from_bytes(self.data[2:2 + size], "big"), 2 + size
        need(at + n)
        opcode, body, self.data = self.data[0] & 15, self.data[at:at + n], self.data[at + n:]
        return opcode, body

    def put(self, opcode, body, fin=True, mask=True):
        head = bytes([opcode | (128 if fin else 0)])
        n = len(body)
        head += bytes([(128 if mask else 0) | (n if n < 126 else 126 if n < 65536 else 127)])
        head += b"" if n < 126 else struct.pack(">H", n) if n < 65536 else struct.pack(">Q", n)
        if mask:
            key = os.urandom(4)
            pad = (key * (n // 4 + 1))[:n]
            body = (int.from_bytes(body, "big") ^ int.from_bytes(pad, "big")).to_bytes(n, "big") if n else b""
            head += key
        self.s.sendall(head + body)

    def text(self, text):
        self.put(1, text.encode() if isinstance(text, str) else text)

    def send(self, **message):
        self.text(json.dumps(message))

    def recv(self, seconds=None):
        """The next message. Closed, with the code, when there is none; TimeoutError."""
        end = time.time() + (self.timeout if seconds is None else seconds)
        while True:
            opcode, body = self.frame(end)
            if opcode == 1:
                return json.loads(body)
            if opcode == 9:
                self.pings += 1
                if self.pong:
                    self.put(10, body)
            if opcode == 8:
                self.code = int.from_bytes(body[:2], "big") if body else 1005
                try:
                    self.put(8, body[:2])
                    self.s.close()
                except OSError:
                    pass
                raise Closed(self.code, body[2:].decode())

    def all(self, seconds=None):
        """All messages until the close; self.code is its code (1006: none came)."""
        got, end = [], time.time() + (self.timeout if seconds is None else seconds)
        try:
            while True:
                got.append(self.recv(end - time.time()))
        except Closed as c:
            self.code = c.code
        except OSError:
            self.code = 1006
        return got

    def close(self, code=1000):
        try:
            self.put(8, struct.pack(">H", code))
            return self.all(5)
        except (OSError, TimeoutError):
            return []
        finally:
            self.s.close()

    def cut(self):
        self.s.close()
