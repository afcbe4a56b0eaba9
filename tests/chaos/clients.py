"""clients.py - who uses Hutch while chaos.py shakes it, and the ledger of what they were told.

Every create carries an Idempotency-Key and is repeated with it until it is answered: what was
acknowledged, and how often, is all that the promises are checked against.
"""
import http.client
import json
import os
import threading
import time
from urllib.parse import urlsplit

CUT = 0  # the status of a request that got no answer


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers = status, headers
        try:
            self.json = json.loads(body) if body.startswith((b"{", b"[")) else {}
        except ValueError:
            self.json, self.status = {}, CUT  # it was cut off

    def get(self, name):
        return self.json.get(name) if isinstance(self.json, dict) else None


class Ledger:
    """What clients were told. A set per key: more than one id in it would be two effects."""

    def __init__(self, env):
        self.url = urlsplit(env["HUTCH_URL"])
        self.key = {"X-API-Key": env["HUTCH_API_KEY"]}
        self.lock = threading.Lock()
        self.capsules, self.keys = {}, {}     # idempotency key -> ids it was answered with
        self.destroyed, self.revoked = set(), set()
        self.murdered = set()                 # capsules whose QEMU chaos.py killed
        self.wrong, self.cut, self.refused, self.commands = [], 0, 0, 0
        self.outages = []                     # [from, to] of what chaos.py did
        self.since = time.monotonic()

    def call(self, what, method, path, body=None, headers=None, also=()):
        """One request. `also`: statuses that are honest here besides those of success and of an outage."""
        begin = time.monotonic()
        try:
            c = http.client.HTTPConnection(self.url.hostname, self.url.port or 80, timeout=150)
            c.request(method, path, json.dumps(body) if body is not None else None,
                      {"Content-Type": "application/json", **(self.key if headers is None or "Authorization" not in headers else {}),
                       **(headers or {})})
            r = c.getresponse()
            a = Answer(r.status, r.headers, r.read())
            c.close()
        except (OSError, http.client.HTTPException):
            a = Answer(CUT, {}, b"")
        self.judge(what, path, a, begin, also)
        return a

    def judge(self, what, path, a, begin, also):
        """I11: during an outage 503 with Retry-After, or no answer at all; else success."""
        if 200 <= a.status < 300 or a.status in also:
            return
        why = ""
        if a.status in (429, 503):
            self.refused += 1
            if not a.headers.get("Retry-After"):
                why = "without Retry-After"
        elif a.status == CUT:
            self.cut += 1
        else:
            why = "is not an honest answer"
        if not why and not self.in_outage(begin, time.monotonic()):
            why = "though nothing was away"
        if why:
            with self.lock:
                self.wrong.append("t=%.1f %s %s: %d %s %s" % (time.monotonic() - self.since, what, path, a.status,
                                                             json.dumps(a.json)[:200], why))

    def in_outage(self, begin, end):
        return any(begin <= to and end >= since for since, to in list(self.outages))

    def note(self, book, key, value):
        with self.lock:
            book.setdefault(key, set()).add(value)

    def create(self, key):
        """True when acknowledged."""
        a = self.call("create", "POST", "/v1/capsules", {"template": "minimal", "metadata": {"chaos": key}},
                      {"Idempotency-Key": key}, also=(409,))
        if a.status == 201:
            self.note(self.capsules, key, a.get("id"))
        return a.get("id") if a.status == 201 else None

    def destroy(self, capsule):
        a = self.call("destroy", "DELETE", "/v1/capsules/" + capsule)
        if a.status == 204:
            with self.lock:
                self.destroyed.add(capsule)
        return a.status == 204

    def exec(self, capsule, args):
        # 409: not running yet; 502, 504: the machine itself ended under the command, or hangs
        return self.call("exec", "POST", "/v1/capsules/%s/exec" % capsule,
                         {"cmd": args[0], "args": args[1:], "timeout_sec": 20}, also=(409, 502, 504))

    def state(self, capsule):
        return self.call("get", "GET", "/v1/capsules/" + capsule).get("state")

    def acked(self):
        with self.lock:
            return {i for ids in self.capsules.values() for i in ids}


class Client(threading.Thread):
    """Repeats something until told to stop, then finishes what it has begun."""

    def __init__(self, ledger, number):
        super().__init__(daemon=True)
        self.ledger, self.number = ledger, number
        self.stop = threading.Event()
        self.turn, self.end_at = 0, 0.0

    def finish(self, seconds):
        self.end_at = time.monotonic() + seconds
        self.stop.set()

    def late(self):
        return self.stop.is_set() and time.monotonic() > self.end_at

    def again(self, what):
        """Until what() is true; what is begun is finished also after the stop, but not for ever."""
        while not (got := what()) and not self.late():
            time.sleep(0.4)
        return got

    def run(self):
        while not self.stop.is_set():
            self.turn += 1
            self.once("chaos-%d-%d-%d" % (os.getpid(), self.number, self.turn))

    def once(self, key):
        raise NotImplementedError


class CapsuleClient(Client):
    """Create, command, destroy. Its fourth capsule stays."""

    def __init__(self, ledger, number):
        super().__init__(ledger, number)
        self.kept = []

    def once(self, key):
        capsule = self.again(lambda: self.ledger.create(key))
        if not capsule:
            return
        self.command(capsule, key)
        if self.turn == 4:
            self.kept.append(capsule)
        else:
            self.again(lambda: self.ledger.destroy(capsule))

    def command(self, capsule, text):
        for _ in range(40):
            a = self.ledger.exec(capsule, ["echo", text])
            if a.status == 200:
                self.ledger.commands += 1
                if a.get("stdout") != text + "\n" or a.get("exit_code") != 0:
                    self.ledger.wrong.append("exec in %s said %s" % (capsule, json.dumps(a.json)[:200]))
                return
            if self.late() or self.ledger.state(capsule) in ("error", "stopped"):
                return
            time.sleep(0.5)


class KeyClient(Client):
    """Makes API keys and ends most of them: writes that need no host. Signed in as the administrator."""

    def __init__(self, ledger, number, env):
        super().__init__(ledger, number)
        a = ledger.call("login", "POST", "/v1/auth/login", {"email": env["HUTCH_ADMIN_EMAIL"],
                                                           "password": env["HUTCH_ADMIN_PASSWORD"], "client": "cli"})
        self.auth = {"Authorization": "Bearer %s" % a.get("token")}

    def make(self, key):
        a = self.ledger.call("key", "POST", "/v1/api-keys", {"name": key}, {**self.auth, "Idempotency-Key": key}, also=(409,))
        if a.status == 201:
            self.ledger.note(self.ledger.keys, key, a.get("id"))
        return a.get("id") if a.status == 201 else None

    def revoke(self, ident):
        # a first try that was cut off may have done it: then there is none any more
        a = self.ledger.call("revoke", "DELETE", "/v1/api-keys/" + ident, headers=self.auth, also=(404,))
        if a.status in (204, 404):
            self.ledger.revoked.add(ident)
        return a.status in (204, 404)

    def readable(self, ident):
        return self.ledger.call("key", "GET", "/v1/api-keys/" + ident, headers=self.auth, also=(404,)).status

    def once(self, key):
        ident = self.again(lambda: self.make(key))
        if ident and (self.turn % 10 or self.turn > 80):
            self.again(lambda: self.revoke(ident))
        self.stop.wait(0.7)
