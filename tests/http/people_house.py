"""people_house.py - PostgreSQL, Redis, worker and API of a test's own, and a FastCGI client: any address, any setting.

For the tests people*.py. The web server in front is left out: what it does is tested by edge.py and the .t files.
"""
import base64
import email
import email.policy
import glob
import hashlib
import hmac
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.join(os.path.dirname(os.path.realpath(__file__)), "../jobs"))
from private import BUILD, Private, Report, wait_for  # noqa: E402,F401

os.environ.setdefault("ASAN_OPTIONS", "detect_leaks=0")  # what a process holds at its end is no leak
API = os.path.join(BUILD, "fcgi-app/hutch-api")
PASSWORD = "a long enough one"
TOKEN = r"token=([A-Za-z0-9_-]+)"


def pair(name, value):
    def length(n):
        return bytes([n]) if n < 128 else struct.pack(">I", n | 1 << 31)
    name, value = name.encode(), value.encode()
    return length(len(name)) + length(len(value)) + name + value


def record(kind, data):
    return struct.pack(">BBHHBB", 1, kind, 1, len(data), 0, 0) + data


class Answer:
    """Status, headers and JSON of one answer."""

    def __init__(self, raw):
        head, _, self.body = raw.partition(b"\r\n\r\n")
        self.headers, self.cookies, self.status = {}, {}, 200
        for line in head.decode().split("\r\n"):
            k, _, v = line.partition(":")
            k, v = k.strip().lower(), v.strip()
            if k == "status":
                self.status = int(v.split()[0])
            elif k == "set-cookie":
                name, _, value = v.split(";")[0].partition("=")
                self.cookies[name] = value
            else:
                self.headers[k] = v
        self.json = json.loads(self.body) if self.body.strip() else None
        self.code = self.json["error"]["code"] if isinstance(self.json, dict) and isinstance(self.json.get("error"), dict) else ""

    def seen(self):
        """What a stranger can compare: everything but the request id and the rate limit's counters."""
        body = re.sub(rb'"request_id":"[^"]*"', b"", self.body)
        return self.status, sorted(k for k in self.headers), sorted(self.cookies), body

    def __repr__(self):
        return "%d %s" % (self.status, self.body[:200])


class House(Private):
    """All servers but the web server; conf as in Private."""

    def __init__(self, processes=6, **conf):
        auth = {"rate_limits": False, "hash_cost": 1, "hash_parallel": 2}
        auth.update(conf.pop("auth", {}))
        conf["workers"] = {"fast_slots": 0, "mail_slots": 1, "capsule_slots": 0, "tick_slots": 1}
        super().__init__(auth=auth, http={"public_url": "https://hutch.test"}, **conf)
        if not os.path.exists(API):
            print("skip %s: needs %s\n0 passed, 0 failed, 1 skipped" % (os.path.basename(sys.argv[0]), API))
            sys.exit(0)
        self.processes, self.api = processes, None
        self.conf["api"] = {"ops_socket": self.dir + "/ops.sock"}
        self.conf["db"] = {"url": "host=%s dbname=hutch user=hutch_app" % self.dir}
        self.start()
        self.start_worker()
        self.start_api()

    def start_api(self):
        log = open(self.dir + "/api.log", "ab")
        self.api = subprocess.Popen([API, "-c", self.dir + "/hutch.conf", "-p", "ops", "-m", str(self.processes),
                                     "--listen", self.dir + "/ops.sock"], stderr=log)
        self.workers.append(self.api)
        assert wait_for(self.answers, 10), open(self.dir + "/api.log").read()

    def answers(self):
        try:
            return self.call("GET", "/v1/auth/methods").status == 200
        except OSError:
            return False

    def again(self, **auth):
        """The API anew, with other settings of the section auth."""
        self.conf["auth"].update(auth)
        self.write_conf()
        self.api.send_signal(signal.SIGTERM)
        self.api.wait(60)
        self.workers.remove(self.api)
        self.start_api()

    def call(self, method, path, body=None, token=None, ip="192.0.2.1", agent="people", cookies=None, raw=None, **headers):
        path, _, query = path.partition("?")
        data = raw if raw is not None else b"" if body is None else json.dumps(body).encode()
        env = {"REQUEST_METHOD": method, "REQUEST_URI": path + ("?" + query if query else ""), "SCRIPT_NAME": path,
               "QUERY_STRING": query, "CONTENT_LENGTH": str(len(data)), "CONTENT_TYPE": "application/json",
               "REMOTE_ADDR": ip, "HTTP_USER_AGENT": agent, "SERVER_PROTOCOL": "HTTP/1.1", "SERVER_NAME": "hutch.test",
               "DOCUMENT_URI": path}
        if token:
            env["HTTP_AUTHORIZATION"] = "Bearer " + token
        if cookies:
            env["HTTP_COOKIE"] = "; ".join("%s=%s" % c for c in cookies.items())
        env.update({"HTTP_" + k.upper(): v for k, v in headers.items()})
        params = b"".join(pair(k, v) for k, v in env.items())
        out = record(1, struct.pack(">HB5x", 1, 0)) + record(4, params) + record(4, b"")
        for i in range(0, len(data), 65535):
            out += record(5, data[i:i + 65535])
        with socket.socket(socket.AF_UNIX) as s:
            s.settimeout(150)
            s.connect(self.dir + "/ops.sock")
            s.sendall(out + record(5, b""))
            got = b""
            while True:
                piece = s.recv(65536)
                if not piece:
                    break
                got += piece
        return Answer(self.unpack(got))

    @staticmethod
    def unpack(data):
        out = b""
        while len(data) >= 8:
            _, kind, _, n, pad, _ = struct.unpack(">BBHHBB", data[:8])
            if kind == 6:
                out += data[8:8 + n]
            data = data[8 + n + pad:]
        return out

    def at_once(self, n, one):
        """one(i) for i below n, all at the same time."""
        with ThreadPoolExecutor(n) as pool:
            return list(pool.map(one, range(n)))

    # ---- people ----

    def mails(self, address, template=None):
        """All mails to the address, oldest first: (template, text)."""
        found = []
        for path in glob.glob(self.dir + "/mail/*.eml"):
            with open(path, "rb") as f:
                m = email.message_from_binary_file(f, policy=email.policy.default)
            if address in str(m["To"]) and template in (None, m["X-Hutch-Template"]):
                found.append((os.stat(path).st_mtime_ns, m["X-Hutch-Template"], m.get_body(("plain",)).get_content(), m["Subject"]))
        return [f[1:] for f in sorted(found)]

    def mailed(self, address, template, n=1, seconds=15):
        """The token of the n-th mail of a template, when it has come."""
        assert wait_for(lambda: len(self.mails(address, template)) >= n, seconds), "%d x %s to %s: %s" % (
            n, template, address, self.mails(address))
        return re.search(TOKEN, self.mails(address, template)[n - 1][1]).group(1)

    def signup(self, address, password=PASSWORD, name="Ada", **more):
        return self.call("POST", "/v1/auth/signup", {"email": address, "password": password, "name": name}, **more)

    def activate(self, token, **more):
        return self.call("POST", "/v1/auth/activate", {"token": token}, **more)

    def login(self, address, password=PASSWORD, **more):
        return self.call("POST", "/v1/auth/login", {"email": address, "password": password, "client": "cli"}, **more)

    def person(self, address, password=PASSWORD):
        """Signs up and activates; the authResponse."""
        self.signup(address, password)
        a = self.activate(self.mailed(address, "activate"))
        assert a.status == 200, a
        return a.json

    def complaints(self):
        """What the programs wrote of crashes and of the sanitizers."""
        logs = glob.glob(self.dir + "/*.log")
        return [line for path in logs for line in open(path, errors="replace") if "runtime error" in line or "Sanitizer" in line
                or '"level":"fatal"' in line]

    def one(self, text):
        return self.sql(text, user="postgres")

    def audit(self, resource, action, email_address=None):
        """Rows of the audit log, about a person."""
        who = " AND subject_user = (SELECT id FROM users WHERE email = '%s')" % email_address if email_address else ""
        return int(self.one("SELECT count(*) FROM audit_logs WHERE resource_type = '%s' AND action = '%s'%s" % (resource, action, who)))


def totp(secret, at=None, step=0):
    """The code of an authenticator, by another implementation than the one that is tested."""
    n = int((time.time() if at is None else at) // 30) + step
    mac = hmac.new(base64.b32decode(secret), struct.pack(">Q", n), hashlib.sha1).digest()
    at = mac[-1] & 15
    return "%06d" % ((struct.unpack(">I", mac[at:at + 4])[0] & 0x7fffffff) % 1000000)
