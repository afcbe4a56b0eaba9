"""fastcgi.py - the API of a private instance without a web server: one hutch-api, asked by FastCGI on its socket."""
import json
import os
import signal
import socket
import struct
import subprocess

from private import BUILD, wait_for


def pair(name, value):
    def size(n):
        return bytes([n]) if n < 128 else struct.pack(">I", n | 1 << 31)
    name, value = name.encode(), value.encode()
    return size(len(name)) + size(len(value)) + name + value


def record(kind, data):
    return struct.pack(">BBHHBB", 1, kind, 1, len(data), 0, 0) + data


class Answer:
    """What came back: status, headers, JSON or None."""

    def __init__(self, raw):
        head, _, self.text = raw.partition(b"\r\n\r\n")
        self.headers = {}
        for line in head.decode().split("\r\n"):
            name, _, value = line.partition(": ")
            self.headers[name.lower()] = value
        self.status = int(self.headers.get("status", "200").split()[0])
        self.json = json.loads(self.text) if self.text.strip() else None

    @property
    def code(self):
        return self.json["error"]["code"] if self.status >= 400 else ""

    def __repr__(self):
        return "%d %s" % (self.status, self.text[:400].decode("utf-8", "replace"))


class Api:
    """hutch-api on a socket in the private folder, and who is signed in."""

    def __init__(self, private, processes=4):
        self.p, self.path = private, private.dir + "/api.sock"
        binary = os.path.join(BUILD, "fcgi-app/hutch-api")
        with open(private.dir + "/api.log", "wb") as log:
            self.process = subprocess.Popen([binary, "-c", private.dir + "/hutch.conf", "-p", "ops", "-m", str(processes),
                                             "--listen", self.path], stderr=log, stdin=subprocess.DEVNULL, start_new_session=True)
        private.workers.append(self.process)
        assert wait_for(lambda: os.path.exists(self.path) and self.call("GET", "/v1/health").status == 200, 10), "hutch-api does not start"

    def end(self):
        """Its processes, too, should one not have heard."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass

    def call(self, method, path, body=None, token=None, **headers):
        path, _, query = path.partition("?")
        data = b"" if body is None else json.dumps(body).encode()
        env = {"REQUEST_METHOD": method, "REQUEST_URI": path + ("?" + query if query else ""), "SCRIPT_NAME": path, "QUERY_STRING": query,
               "REMOTE_ADDR": "192.0.2.7", "CONTENT_LENGTH": str(len(data)), "CONTENT_TYPE": "application/json",
               "SERVER_PROTOCOL": "HTTP/1.1", "HTTP_USER_AGENT": "canary-agent/1"}
        if token:
            env["HTTP_AUTHORIZATION"] = "Bearer " + token
        for name, value in headers.items():
            env["HTTP_" + name.upper()] = value
        out = record(1, struct.pack(">HB5x", 1, 0)) + record(4, b"".join(pair(k, v) for k, v in env.items())) + record(4, b"")
        if data:
            out += record(5, data)
        out += record(5, b"")
        try:
            return Answer(self.exchange(out))
        except (ConnectionError, FileNotFoundError):
            return Answer(b"Status: 599\r\n\r\n")

    def exchange(self, out):
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(60)
            s.connect(self.path)
            s.sendall(out)
            f, answer = s.makefile("rb"), b""
            while True:
                head = f.read(8)
                if len(head) < 8:
                    return answer
                _, kind, _, length, padding, _ = struct.unpack(">BBHHBB", head)
                data = f.read(length)
                f.read(padding)
                if kind == 6:
                    answer += data
                elif kind == 3:
                    return answer

    def login(self, email, password):
        a = self.call("POST", "/v1/auth/login", {"email": email, "password": password})
        return a.json["token"] if a.status == 200 else a


class Person:
    """Somebody with an account, a team and a way to ask."""

    def __init__(self, api, email, token):
        self.api, self.email, self.token = api, email, token
        row = api.p.rows("SELECT u.id, m.team_id FROM users u LEFT JOIN users_teams m ON m.user_id = u.id AND m.role = 'owner' "
                         "WHERE u.email = '%s' ORDER BY m.created_at LIMIT 1" % email)[0]
        self.uuid, self.team = row
        from private import wire
        self.id, self.team_id = wire("usr-", self.uuid), wire("team-", self.team) if self.team else None

    def __call__(self, method, path, body=None, **headers):
        return self.api.call(method, path, body, self.token, **headers)
