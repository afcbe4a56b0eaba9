#!/usr/bin/env python3
"""ports.py - ports of capsules from outside (spec 02 §2.8, 06 §3-5): a real VM with services on its loopback, by host name and by header."""
import base64
import hashlib
import hmac
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlsplit

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import raw  # noqa: E402
from crew import Person, call, check, end, sql, uuid_of  # noqa: E402

WEB = urlsplit(os.environ["HUTCH_URL"])
DOMAIN = os.environ["HUTCH_DOMAIN"]
PUBLIC = os.environ["E2B_DOCS_BASE"].removesuffix("/app")  # http.public_url
KEY = {"X-API-Key": os.environ["HUTCH_API_KEY"]}
LABEL = os.environ.get("HUTCH_WEB", "lighttpd")
IDLE = int(os.environ.get("HUTCH_PORTS_IDLE", "70"))  # longer than any timer that a web server has for others
ONLY = sys.argv[1:]
UNKNOWN = "cl-0000000000000000000000001"


def good(name, cond, why=""):
    check("%s: %s" % (LABEL, name), cond, why)


def token(capsule, label):
    """The capsule's tokens, as the control plane computes them from the deployment's secret."""
    with open(os.path.join(os.environ["HUTCH_RUN"], "secret/master.key")) as f:
        prk = hmac.new(b"hutch-1", bytes.fromhex(f.read().strip()), hashlib.sha256).digest()
    key = hmac.new(prk, label.encode() + b"\1", hashlib.sha256).digest()
    n = 0
    for c in capsule[3:]:
        n = n * 36 + "0123456789abcdefghijklmnopqrstuvwxyz".index(c)
    return hmac.new(key, n.to_bytes(16, "big") + (1).to_bytes(8, "big"), hashlib.sha256).hexdigest()


def send(host, method, target, headers=None, body=b"", timeout=120):
    """One request with exactly this Host."""
    lines = ["%s %s HTTP/1.1" % (method, target), "Host: " + host, "Connection: close"]
    lines += ["%s: %s" % kv for kv in (headers or {}).items()]
    if not any(line.lower().startswith("transfer-encoding") for line in lines) and (body or method == "POST"):
        lines.append("Content-Length: %d" % len(body))
    return raw.send(WEB.hostname, WEB.port, "\r\n".join(lines).encode() + b"\r\n\r\n" + body, timeout=timeout)


def connect(host, target, headers=None, upgrade=None):
    """A connection whose answer's head was read: (socket, status, rest)."""
    s = socket.create_connection((WEB.hostname, WEB.port), timeout=90)
    lines = ["GET %s HTTP/1.1" % target, "Host: " + host] + ["%s: %s" % kv for kv in (headers or {}).items()]
    if upgrade:
        lines += ["Connection: Upgrade", "Upgrade: " + upgrade]
    s.sendall("\r\n".join(lines).encode() + b"\r\n\r\n")
    got = b""
    while b"\r\n\r\n" not in got:
        part = s.recv(4096)
        if not part:
            return s, 0, got
        got += part
    head, _, rest = got.partition(b"\r\n\r\n")
    return s, int(head.split()[1]), rest


def settled(ask, want):
    """The answer of ask(), when want() is content with it: what was known may be believed for 2 s, by each process for itself."""
    time.sleep(2.5)
    until = time.monotonic() + 60
    while not want(a := ask()) and time.monotonic() < until:
        time.sleep(0.5)
    return a


def websocket(host, headers=None):
    return connect(host, "/ws", {**(headers or {}), "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
                                 "Sec-WebSocket-Version": "13"}, "websocket")


def echo(s, text):
    """The text comes back, and nothing else but pings, which are answered; echo.pings is how many."""
    s.sendall(bytes([0x81, 0x80 | len(text)]) + b"\0\0\0\0" + text)
    want, got, echo.pings = bytes([0x81, len(text)]) + text, b"", 0
    while len(got) < len(want) or got[:1] == b"\x89":
        if got[:1] == b"\x89" and len(got) > 1 and len(got) >= 2 + got[1]:
            size = got[1]
            s.sendall(bytes([0x8a, 0x80 | size]) + b"\1\2\3\4" + bytes(b ^ (1, 2, 3, 4)[i & 3] for i, b in enumerate(got[2:2 + size])))
            got, echo.pings = got[2 + size:], echo.pings + 1
            continue
        part = s.recv(4096)
        if not part:
            break
        got += part
    return got == want


class House:
    """A capsule with the service on 8080 and 8081, bound to loopback."""

    def __init__(self):
        a = call("POST", "/v1/capsules", {"template": "base", "timeout_sec": 0, "wait": 50,
                                          "ports": [{"port": 8443, "protocol": "https", "label": "tls"}]}, KEY)
        self.id = a.json["id"]
        self.base = "/v1/capsules/" + self.id
        self.reach("running")
        with open(os.path.join(HERE, "ports_service.py"), "rb") as f:
            self.write("service.py", f.read())
        call("POST", self.base + "/exec", {"cmd": "python3", "args": ["service.py", "8080,8081", "127.0.0.1"], "background": True}, KEY)
        for _ in range(240):
            if send(self.host(8080), "GET", "/", KEY).status == 200:
                break
            time.sleep(0.5)

    def reach(self, state):
        until = time.monotonic() + 180
        while call("GET", self.base, None, KEY).json["state"] != state and time.monotonic() < until:
            time.sleep(0.3)

    def write(self, path, data):
        form = (b'--b\r\nContent-Disposition: form-data; name="path"\r\n\r\n' + path.encode() + b'\r\n--b\r\nContent-Disposition: form-data; '
                b'name="file"; filename="f"\r\n\r\n' + data + b"\r\n--b--\r\n")
        raw.request(WEB.hostname, WEB.port, "POST", self.base + "/files/write",
                    ["X-API-Key: " + KEY["X-API-Key"], "Content-Type: multipart/form-data; boundary=b"], form)

    def host(self, port, bare=False):
        return "%d-%s.%s" % (port, self.id[3:] if bare else self.id, DOMAIN)

    def by_header(self, port=None):
        h = {"E2b-Sandbox-Id": self.id[3:]}
        return {**h, "E2b-Sandbox-Port": str(port)} if port else h


def headers_of(a):
    return {k.lower(): v for k, v in (a.json() or {}).get("headers", [])}


def test_allow(h):
    """Who may, and what the service sees of it."""
    private, other = h.host(8080), {"Authorization": "Bearer " + Person("ports").token}
    a = send(private, "GET", "/")
    good("private, none: 401 JSON", a.status == 401 and a.json()["error"]["code"] == "unauthorized", a.body)
    html = {"Accept": "text/html,*/*;q=0.8"}
    a = send(private, "GET", "/a?b=1&c", {**html, "Sec-Fetch-Dest": "document"})
    good("private, none, a browser: to the dashboard, and back to the same place", a.status == 302 and a.headers.get("location")
         == "%s/app/port?capsule=%s&port=8080&to=%s" % (PUBLIC, h.id, quote("/a?b=1&c")), (a.status, a.headers))
    a = send(private, "GET", "/", {**html, "Cookie": "hutch_port=junk", "Authorization": "Basic eDp5"})
    good("… with a cookie that is none, and a password of the service's own", a.status == 302, a.status)
    for name, method, headers in (("in a frame", "GET", {**html, "Sec-Fetch-Dest": "iframe"}), ("a POST", "POST", html)):
        a = send(private, method, "/", headers)
        good("… but %s: a page that says how" % name, a.status == 401 and b"/.hutch/auth" in a.body
             and a.headers["content-type"].startswith("text/html"), a.body[:200])
    good("… and in E2B's form: 403", send(h.host(8080, bare=True), "GET", "/", html).status == 403)
    good("a browser with a bad key: 401", send(private, "GET", "/", {**html, "X-API-Key": "htc_" + "0" * 40}).status == 401)
    foreign, unknown = send(private, "GET", "/", other), send("8080-%s.%s" % (UNKNOWN, DOMAIN), "GET", "/", other)
    good("another team's key and an unknown capsule: the same 404", foreign.status == unknown.status == 404
         and foreign.json()["error"]["message"] == unknown.json()["error"]["message"], (foreign.body, unknown.body))
    a = send(private, "POST", "/a?b=c", {**KEY, "Cookie": "x=1; hutch_port=junk; y=2", "Authorization": "Bearer theirs",
                                         "X-Forwarded-For": "6.6.6.6", "X-Forwarded-Host": "evil", "Forwarded": "for=6.6.6.6",
                                         "X-Access-Token": "t", "E2b-Traffic-Access-Token": "bad"}, b"hello")
    seen = headers_of(a)
    good("own key: 200, method, path, body", a.status == 200 and (a.json()["method"], a.json()["path"], a.json()["length"]) == ("POST", "/a?b=c", 5), a.body)
    good("the key, our cookie, our tokens are stripped", KEY["X-API-Key"] not in a.body.decode() and seen.get("cookie") == "x=1; y=2"
         and not {"x-api-key", "x-access-token", "e2b-traffic-access-token"} & set(seen), seen)
    good("a Bearer of the service's own passes", seen.get("authorization") == "Bearer theirs", seen)
    good("X-Forwarded-*: ours, not the client's", seen.get("x-forwarded-for") not in (None, "6.6.6.6") and seen.get("x-forwarded-proto") == "http"
         and seen.get("x-forwarded-host") == private and "forwarded" not in seen, seen)
    good("Host is kept", seen.get("host") == private, seen)
    good("headers of the service's answer pass, none is added", a.headers.get("x-service") == "yes" and a.headers.get("set-cookie") == "mine=1"
         and "x-frame-options" not in a.headers and "content-security-policy" not in a.headers, a.headers)
    good("bad key: 401 and no word of it", send(private, "GET", "/", {"X-API-Key": "htc_" + "0" * 40}).status == 401)
    a = send(private, "GET", "/", {"E2b-Traffic-Access-Token": token(h.id, "traffic")})
    good("traffic token: 200", a.status == 200, a.body[:200])


def test_cookie(h):
    """A ticket becomes a cookie, which opens this port of this capsule."""
    private = h.host(8080)

    def ticket(port):
        a = call("POST", "/v1/auth/tickets", {"capsule": h.id, "purpose": "port", "port": port}, KEY).json
        good("a ticket's answer says where it is used", a["url"].split("://")[1] == h.host(port) + "/", a)
        return a["ticket"]
    one = ticket(8080)
    a = send(private, "GET", "/.hutch/auth?ticket=%s&to=%s" % (one, quote("/next?x=1", safe="")))
    jar = a.headers.get("set-cookie", "")
    good("ticket: 302 to where it came from, with a cookie", a.status == 302 and a.headers.get("location") == "/next?x=1"
         and jar.startswith("hutch_port=") and "HttpOnly" in jar and "SameSite=Lax" in jar, (a.status, a.headers, a.body))
    cookie = {"Cookie": "k=v; " + jar.split(";")[0]}
    a = send(private, "GET", "/", cookie)
    good("cookie: 200, and the service does not see it", a.status == 200 and headers_of(a).get("cookie") == "k=v", a.body)
    good("a ticket is used up", send(private, "GET", "/.hutch/auth?ticket=" + one).status == 401)
    good("the cookie is for its port", send(h.host(8081), "GET", "/", cookie).status == 401)
    good("… and for nobody else's header", send("localhost", "GET", "/", {**cookie, **h.by_header(8080)}).status == 403)
    a = send(private, "GET", "/.hutch/auth?ticket=%s&to=%s" % (ticket(8080), quote("//evil.example", safe="")))
    good("`to` is a path", a.headers.get("location") == "/", a.headers)
    good("a ticket of another port opens nothing", send(private, "GET", "/.hutch/auth?ticket=" + ticket(8081)).status == 401)


def test_guard(h):
    """Acceptance 31: the guest agent's port."""
    closed = send(h.host(8090), "GET", "/", KEY)
    good("nobody listens: 502 after three tries", closed.status == 502 and closed.json()["error"]["code"] == "port_closed", closed.body)
    for name, with_ in (("key", KEY), ("traffic token", {"E2b-Traffic-Access-Token": token(h.id, "traffic")}), ("none", {}),
                        ("guest token", {"X-Access-Token": token(h.id, "guest")})):
        guest, other = send(h.host(49983), "GET", "/health", with_), send(h.host(8090), "GET", "/health", with_)
        good("49983 in the cl- form is a closed port: " + name, (guest.status, guest.json()["error"]["code"])
             == (other.status, other.json()["error"]["code"]), (guest.body, other.body))
    for form, host, extra in (("host", h.host(49983, True), {}), ("header", "localhost", h.by_header())):
        mine = {**extra, "X-Access-Token": token(h.id, "guest")}
        good(form + ": /health is free", send(host, "GET", "/health", extra).status == 204)
        good(form + ": without token 401", send(host, "GET", "/envs", extra).status == 401)
        good(form + ": with it 200", send(host, "GET", "/envs", mine).status == 200)
        for path in ("/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/grow", "/upgrade", "/stats", "/init/"):
            a = send(host, "POST", path, mine, b"{}")
            good("%s: %s is 404" % (form, path), a.status == 404, a.body)
        a = send(host, "OPTIONS", "/process.Process/Start", {**extra, "Origin": "https://x.example", "Access-Control-Request-Method": "POST",
                                                            "Access-Control-Request-Headers": "x-access-token,content-type"})
        good(form + ": preflight", a.status == 204 and a.headers.get("access-control-allow-origin") == "*"
             and a.headers.get("access-control-allow-headers") == "x-access-token,content-type", a.headers)
        a = send(host, "POST", "/process.Process/List", {**mine, "Content-Type": "application/json", "Transfer-Encoding": "chunked"}, b"1\r\n{\r\n1\r\n}\r\n0\r\n\r\n")
        good(form + ": a call with a chunked body of single bytes", a.status == 200 and "processes" in (a.json() or {}), a.body[:200])
        good(form + ": CORS on answers", a.headers.get("access-control-allow-origin") == "*", a.headers)


def test_pages(h):
    """The exact words of E2B's data plane."""
    bare = UNKNOWN[3:]
    a = send("49983-%s.%s" % (bare, DOMAIN), "GET", "/health")
    good("missing", a.status == 502 and a.headers["content-type"] == "application/json" and a.body ==
         b'{"sandboxId":"%s","message":"The sandbox was not found","code":502,"error_code":"capsule_not_found"}' % bare.encode(), a.body)
    a = send("localhost", "POST", "/process.Process/List", {**h.by_header(), "X-Access-Token": token(UNKNOWN, "guest")}, b"{}")
    good("the token of another capsule: as a missing one", a.status == 502 and a.body ==
         b'{"sandboxId":"%s","message":"The sandbox was not found","code":502,"error_code":"capsule_not_found"}' % h.id[3:].encode(), a.body)
    a = send(h.host(8090, True), "GET", "/", {"E2b-Traffic-Access-Token": token(h.id, "traffic")})
    good("closed", a.status == 502 and a.body == (
        '{"sandboxId":"%s","message":"The sandbox is running but port is not open","port":8090,"code":502,"error_code":"port_closed"}'
        % h.id[3:]).encode(), a.body)
    a = send(h.host(8080, True), "GET", "/")
    good("private, bare form: 403 JSON", a.status == 403 and a.json()["code"] == 403, a.body)
    a = send("49983-%s.%s" % (bare, DOMAIN), "GET", "/health", {"Accept": "text/html,*/*"})
    good("for browsers a page", a.status == 502 and b"was not found" in a.body and a.headers["content-type"].startswith("text/html"), a.body[:100])
    a = send("localhost", "GET", "/", {"E2b-Sandbox-Id": "nonsense", "E2b-Sandbox-Port": "1"})
    good("no id at all", a.status == 502 and a.json()["error_code"] == "capsule_not_found", a.body)
    a = send(h.host(8080), "GET", "/", {**KEY, "E2b-Sandbox-Id": bare, "E2b-Sandbox-Port": "49983"})
    good("the host name beats headers", a.status == 200 and a.json()["path"] == "/", a.body[:200])


def test_signed(h):
    """Signed URLs: with a host name, and with none at all."""
    mine = {**h.by_header(), "X-Access-Token": token(h.id, "guest")}
    a = send("localhost", "POST", "/files?path=signed.txt", {**mine, "Content-Type": "application/octet-stream"}, b"signed")
    good("a file to sign", a.status == 200, a.body)

    def url(path, op, expires=None):
        text = "%s:%s:%s:%s%s" % (path, op, "", token(h.id, "guest"), ":%d" % expires if expires else "")
        s = "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        return "/files?path=%s&signature=%s%s" % (quote(path), quote(s, safe=""), "&signature_expiration=%d" % expires if expires else "")
    later = int(time.time()) + 600
    for form, host in (("host name", h.host(49983, True)), ("nothing", "localhost")):
        a = send(host, "GET", url("signed.txt", "read", later))
        good("named by %s: read" % form, a.status == 200 and a.body == b"signed", a.body[:200])
        a = send(host, "GET", url("signed.txt", "write", later))
        good("named by %s: a signature for something else: 401" % form, a.status == 401, a.body[:200])
        a = send(host, "GET", url("signed.txt", "read", 1000))
        good("named by %s: expired: 401" % form, a.status == 401, a.body[:200])
        a = send(host, "POST", url("signed2.txt", "write"), {"Content-Type": "application/octet-stream"}, b"x")
        good("named by %s: write" % form, a.status == 200, a.body[:200])
    # faster than 20 a second, however slow this machine is just now
    over, rounds = [], 0
    with ThreadPoolExecutor(16) as pool:
        while 400 not in over and (rounds := rounds + 1) <= 20:
            over += pool.map(lambda i: send("localhost", "GET", "/files?path=x%d&signature=v1_x" % i).status, range(80))
    good("an address may try 20 a second", over.count(400) > 0 and over.count(401) >= 10, over[-80:])


def test_pass(h):
    """Methods, bodies, streams, upgrades; what is no HTTP."""
    host = h.host(8080)
    for method in ("PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"):
        a = send(host, method, "/m", KEY)
        good(method + " passes", a.status == 200 and a.json()["method"] == method, a.body[:100])
    a = send(host, "HEAD", "/m", KEY)
    good("HEAD: length and no body", a.status == 200 and int(a.headers["content-length"]) > 0 and not a.body, a.headers)
    data = os.urandom(3 << 20)
    sha = hashlib.sha256(data).hexdigest()
    a = send(host, "PUT", "/up", KEY, data)
    good("3 MiB up with a length", a.status == 200 and a.json()["sha"] == sha, a.body[:200])
    a = send(host, "PUT", "/up", {**KEY, "Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    good("3 MiB up in chunks", a.status == 200 and a.json()["sha"] == sha, a.body[:200])
    data = os.urandom(8 << 20)
    pieces = b"".join(b"3e8\r\n%s\r\n" % data[i:i + 1000] for i in range(0, 8 << 20, 1000) if i + 1000 <= 8 << 20)
    sent = data[:(8 << 20) // 1000 * 1000]
    a = send(host, "PUT", "/up", {**KEY, "Transfer-Encoding": "chunked"}, pieces + b"0\r\n\r\n")
    good("8 MiB up in chunks of 1,000 bytes", a.status == 200 and a.json()["sha"] == hashlib.sha256(sent).hexdigest(), a.body[:200])
    a = send(host, "GET", "/big?mib=8", KEY)
    good("8 MiB down", a.status == 200 and len(a.body) == 8 << 20, len(a.body))
    for _ in range(5):  # some may come together; all of them, when it is this program that stands still
        s, status, rest = connect(host, "/events?n=20", KEY)
        times = []
        while b"data: 19" not in rest:
            rest += s.recv(4096) or b"data: 19"
            times.append(time.monotonic())
        if len(times) >= 3 and times[-1] - times[0] > 0.3:
            break
    good("events are flushed one by one", status == 200 and len(times) >= 3 and times[-1] - times[0] > 0.3, times)
    s, status, rest = connect(host, "/", KEY, "shout")
    s.sendall(b"abc\n")
    while rest.count(b"\n") < 2 and (part := s.recv(100)):
        rest += part
    good("an upgrade that is no WebSocket passes", status == 101 and rest == b"hello\nABC\n", (status, rest))
    s.close()
    for name, answer in (("no HTTP", b"SSH-2.0-x\r\n\r\n"), ("two lengths", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
                         ("a length and chunks", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n"),
                         ("a folded header", b"HTTP/1.1 200 OK\r\nA: b\r\n c\r\n\r\n"), ("nothing", b"")):
        a = send(host, "GET", "/raw?raw=" + base64.urlsafe_b64encode(answer).decode(), KEY)
        good("the service answers %s: 502" % name, a.status == 502 and a.json()["error"]["code"] == "protocol_error", (a.status, a.body[:200]))


def test_tls(h):
    """Services that speak TLS, with a certificate that nobody vouches for."""
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", d + "/key",
                        "-out", d + "/cert", "-days", "1", "-subj", "/CN=nobody"], check=True, capture_output=True)
        h.write("tls.pem", b"".join(open(d + "/" + f, "rb").read() for f in ("key", "cert")))
    call("POST", h.base + "/exec", {"cmd": "python3", "args": ["service.py", "8443,8444", "127.0.0.1", "tls.pem"], "background": True}, KEY)
    host = h.host(8443)
    for _ in range(240):
        a = send(host, "GET", "/t?x", KEY)
        if a.status != 502:
            break
        time.sleep(0.5)
    good("TLS: 200, and the service is called by its name", a.status == 200 and a.json()["tls"] == host.split(":")[0]
         and a.json()["path"] == "/t?x" and KEY["X-API-Key"] not in a.body.decode(), a.body[:200])
    data = os.urandom(3 << 20)
    sha = hashlib.sha256(data).hexdigest()
    good("TLS: 3 MiB up with a length", (send(host, "PUT", "/up", KEY, data).json() or {}).get("sha") == sha)
    a = send(host, "PUT", "/up", {**KEY, "Transfer-Encoding": "chunked"}, b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))
    good("TLS: 3 MiB up in chunks", a.status == 200 and a.json()["sha"] == sha, a.body[:200])
    a = send(host, "GET", "/big?mib=8", KEY)
    good("TLS: 8 MiB down", a.status == 200 and len(a.body) == 8 << 20, len(a.body))
    a = send(host, "HEAD", "/m", KEY)
    good("TLS: HEAD", a.status == 200 and int(a.headers["content-length"]) > 0 and not a.body, a.headers)
    s, status, _ = websocket(host, KEY)
    good("TLS: a WebSocket", status == 101 and echo(s, b"in tls") and echo(s, b"again"), status)
    s.close()
    for name, port, ingress in (("undeclared", 8444, {}), ("of ingress.https_ports", 8444, {"https_ports": [8444]}),
                                ("plain behind it", 8080, {"https_ports": [8080]})):
        sql("UPDATE capsules SET ingress = '%s' WHERE id = '%s'" % (json.dumps(ingress), uuid_of(h.id)))
        a = settled(lambda p=port: send(h.host(p), "GET", "/", KEY), lambda a, n=name: a.status == (200 if n.startswith("of") else 502))
        if name.startswith("of"):
            good("TLS %s: 200" % name, a.status == 200, a.body[:200])
        else:
            good("TLS, %s: 502" % name, a.status == 502 and a.json()["error"]["code"] == "protocol_error", (a.status, a.body[:200]))
    sql("UPDATE capsules SET ingress = '{}' WHERE id = '%s'" % uuid_of(h.id))
    settled(lambda: send(h.host(8080), "GET", "/", KEY), lambda a: a.status == 200)


def test_with_capsule(h):
    """Ports in the capsule object, in create (House), in PATCH: the same rows, the same checks."""
    def shown(a):
        return [(p["port"], p["visibility"], p["url"]) for p in a.json["ports"]]
    get = call("GET", h.base, None, KEY)
    good("declared with the capsule", shown(get) == [(8443, "private", "http://%s/" % h.host(8443))], get.json["ports"])
    before = get.json["generation"]
    for bad in ([{"port": 49983}], [{"port": 0}], [{}], [{"port": 1, "host_header": "a b"}], [{"port": 5}, {"port": 5}], [{"port": 1, "protocol": "ssh"}],
                [{"port": n} for n in range(1, 34)], {"port": 1}, [8080]):
        good("refused: %s" % str(bad)[:50], call("PATCH", h.base, {"ports": bad}, KEY).status == 400)
        good("refused in a create: %s" % str(bad)[:50], call("POST", "/v1/capsules", {"template": "base", "ports": bad}, KEY).status == 400)
    a = call("PATCH", h.base, {"ports": [], "generation": before - 1}, KEY)
    good("another generation: 409, nothing changes", a.status == 409 and shown(call("GET", h.base, None, KEY)) == shown(get), a)
    tls = {"port": 8443, "protocol": "https", "label": "tls"}
    a = call("PATCH", h.base, {"ports": [tls, {"port": 8082, "visibility": "public"}]}, KEY)
    good("PATCH: all of them", a.status == 200 and [p[:2] for p in shown(a)] == [(8082, "public"), (8443, "private")], a)
    good("in the list, too", [shown(type("A", (), {"json": c})) for c in call("GET", "/v1/capsules", None, KEY).json if c["id"] == h.id] == [shown(a)])
    good("… and with their labels", {p["port"]: p.get("label") for p in call("GET", h.base + "/ports", None, KEY).json if p["port"] in (8082, 8443)}
         == {8082: None, 8443: "tls"})
    child = call("POST", h.base + "/fork", {}, KEY).json[0]["capsule"]
    good("a copy's are declared as its parent's", [p["port"] for p in child["ports"]] == [8082, 8443], child["ports"])
    call("DELETE", "/v1/capsules/" + child["id"], None, KEY)
    a = call("PATCH", h.base, {"ports": [tls]}, KEY)
    good("PATCH: one less", [p[0] for p in shown(a)] == [8443], a)
    good("PATCH of something else leaves them", [p[0] for p in shown(call("PATCH", h.base, {"metadata": {"a": "b"}}, KEY))] == [8443])
    told = [(e["type"], e["data"]["port"]) for e in call("GET", h.base + "/events", None, KEY).json if e["type"].startswith("port.")]
    good("events: each change once", sorted(told) == [("port.closed", 8082), ("port.published", 8082), ("port.published", 8443)], told)


def test_rows(h):
    """Declared ports: GET, POST, DELETE; public, private, gone."""
    ports = h.base + "/ports"
    a = call("GET", ports, None, KEY)
    by = {p["port"]: p for p in a.json}
    good("what listens is listed", by.get(8080, {}).get("listening") and by[8080]["visibility"] == "private"
         and by[8080]["url"] == "http://%s/" % h.host(8080) and 49983 not in by, a.json)
    for bad in ({"port": 49983}, {"port": 0}, {"port": 65536}, {"port": 1, "visibility": "x"}, {"port": 1, "host_header": "a b"}, {}):
        good("refused: %s" % bad, call("POST", ports, bad, KEY).status == 400)
    a = call("POST", ports, {"port": 8081, "visibility": "public", "label": "web", "host_header": "dev-${PORT}.internal"}, KEY)
    good("published: 201", a.status == 201 and a.json["visibility"] == "public", a)
    a = settled(lambda: send(h.host(8081), "GET", "/"), lambda a: a.status == 200)
    good("public: anybody, with the Host that was asked for", a.status == 200 and headers_of(a)["host"] == "dev-8081.internal", a.body[:200])
    good("public in the bare form, too", send(h.host(8081, True), "GET", "/").status == 200)
    ws, status, _ = websocket(h.host(8081))
    sse, sse_status, _ = connect(h.host(8081), "/events")
    good("streams are open", status == 101 and sse_status == 200 and echo(ws, b"x"), (status, sse_status))
    began = time.monotonic()
    good("made private", call("POST", ports, {"port": 8081, "visibility": "private"}, KEY).status == 201)
    for name, s in (("WebSocket", ws), ("events", sse)):
        s.settimeout(60)
        try:
            while time.monotonic() - began < 60 and s.recv(4096):
                pass
        except ConnectionResetError:
            pass
        except OSError:
            began -= 99
        ended = time.monotonic() - began
        good("made private: the %s ends within 5 s, on a busy machine 45" % name, ended <= 45, ended)
    a = settled(lambda: send(h.host(8081), "GET", "/"), lambda a: a.status == 401)
    good("… and is closed to others", a.status == 401, a.status)
    good("taken back: 204, then 404", [call("DELETE", "/v1/capsules/%s/ports/8081" % h.id, None, KEY).status for _ in range(2)] == [204, 404])
    events = call("GET", h.base + "/events", None, KEY).json
    kinds = [e["type"] for e in events if e["type"].startswith("port.") and e["data"]["port"] == 8081]
    good("events port.published, port.closed", kinds.count("port.published") == 2 and kinds.count("port.closed") == 1, kinds)
    good("another team: 404", Person("ports2")("GET", ports).status == 404)


def test_sleep(h):
    """Sleep by policy is woken; a person's is not; the next request goes to the new epoch."""
    host, wait = h.host(8080), {"X-API-Key": KEY["X-API-Key"]}
    call("POST", h.base + "/pause", {}, wait)
    h.reach("paused")
    a = settled(lambda: send(host, "GET", "/", KEY), lambda a: a.status == 409)
    good("paused by a person: 409", a.status == 409, a.body)
    call("POST", h.base + "/resume", {}, wait)
    h.reach("running")
    time.sleep(1)
    a = send(host, "GET", "/", KEY)
    good("awake again: the next request is right", a.status == 200, a.body[:200])
    call("POST", h.base + "/pause", {}, wait)
    h.reach("paused")
    sql("UPDATE capsules SET paused_by = 'idle' WHERE observed_state = 'paused' AND id = '%s'" % uuid_of(h.id))
    time.sleep(2.5)
    began = time.monotonic()
    a = send(host, "GET", "/", KEY)  # the gateway itself gives up after 30 s
    good("paused by policy: woken within 30 s", a.status == 200 and time.monotonic() - began < 60, a.body[:200])
    call("POST", h.base + "/hibernate", {}, wait)
    h.reach("hibernated")
    sql("UPDATE capsules SET paused_by = 'drain' WHERE observed_state = 'hibernated' AND id = '%s'" % uuid_of(h.id))
    time.sleep(2.5)
    a = send("49983-%s.%s" % (h.id[3:], DOMAIN), "POST", "/process.Process/List",
             {"X-Access-Token": token(h.id, "guest"), "Content-Type": "application/json"}, b"{}")
    good("bare form: the guest protocol wakes a hibernated one", a.status == 200, a.body[:200])
    call("PATCH", h.base, {"auto_resume": "off"}, KEY)
    call("POST", h.base + "/pause", {}, wait)
    h.reach("paused")
    a = settled(lambda: send("49983-%s.%s" % (h.id[3:], DOMAIN), "GET", "/health"), lambda a: a.status == 502)
    good("auto_resume off: 502 capsule_paused", a.status == 502 and a.json()["error_code"] == "capsule_paused", a.body)
    good("destroyed", call("DELETE", h.base, None, KEY).status == 204)
    a = settled(lambda: send(host, "GET", "/", KEY), lambda a: a.status == 404)
    good("stopped: 404", a.status == 404, a.status)
    a = send("49983-%s.%s" % (h.id[3:], DOMAIN), "GET", "/health")
    good("stopped, bare form: not found", a.status == 502 and a.json()["error_code"] == "capsule_not_found", a.body)


def main():
    h = House()
    s, status, _ = websocket(h.host(8080), KEY)
    good("WebSocket: handshake and echo", status == 101 and echo(s, b"hello"), status)
    began = time.monotonic()
    for test in [t for t in (test_allow, test_cookie, test_guard, test_pages, test_signed, test_pass, test_with_capsule, test_tls, test_rows) if not ONLY or t.__name__ in ONLY]:
        try:
            test(h)
        except Exception as e:  # the next ones still tell something
            good(test.__name__, False, "%s: %s" % (type(e).__name__, e))
    time.sleep(max(0, IDLE - (time.monotonic() - began)))
    good("WebSocket: still open after %d s of silence" % IDLE, echo(s, b"again"))
    silent = time.monotonic() - began
    # one that is late delays those behind it
    good("WebSocket: pinged every 20 s", silent / 30 - 1.5 <= echo.pings <= silent / 20 + 1.5, (echo.pings, silent))
    time.sleep(0.5)
    # one more ping may be due just now
    good("WebSocket: the service, which says all again, got no answer of them", echo(s, b"once more") and echo.pings <= 1, echo.pings)
    if not ONLY or "test_sleep" in ONLY:
        test_sleep(h)
    call("DELETE", h.base, None, KEY)
    end()


if __name__ == "__main__":
    main()
