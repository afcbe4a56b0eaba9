#!/usr/bin/env python3
"""edge.py - requests that no client library sends, against a running instance.

Every one must get a precise 4xx in JSON, or a good answer, and the instance must be well afterwards.
"""
import os
import sys
from urllib.parse import urlsplit

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import raw  # noqa: E402

URL = urlsplit(os.environ.get("HUTCH_URL", "http://localhost:8080"))
HOST, PORT = URL.hostname, URL.port or 80
KEY = "X-API-Key: " + os.environ.get("HUTCH_API_KEY", "")
JSON = "Content-Type: application/json"
LABEL = os.environ.get("HUTCH_WEB", "lighttpd")
FAILED = 0

# Name, what is sent, the statuses that are right, and the error's code (None: any).
BODIES = [
    ("empty body", b"", 400), ("no JSON", b"{", 400), ("trailing bytes", b"{} x", 400), ("two values", b"{}{}", 400),
    ("an array", b"[]", 400), ("duplicate keys", b'{"email":"a@b.example","email":"c@d.example"}', 400),
    ("NaN", b'{"timeout_sec":NaN}', 400), ("Infinity", b'{"timeout_sec":Infinity}', 400),
    ("a number out of range", b'{"timeout_sec":99999999999999999999999}', 400), ("1e999", b'{"timeout_sec":1e999}', 400),
    ("\\u0000", b'{"name":"a\\u0000b"}', 400), ("a NUL byte", b'{"name":"a\x00b"}', 400),
    ("invalid UTF-8", b'{"name":"\xff"}', 400), ("overlong UTF-8", b'{"name":"\xc0\xaf"}', 400),
    ("a lone surrogate", b'{"name":"\\ud800"}', 400), ("a raw newline in a string", b'{"name":"a\nb"}', 400),
    ("depth 100", b'{"metadata":' + b"[" * 100 + b"]" * 100 + b"}", 400),
    ("5000 keys", b"{" + b",".join(b'"k%d":1' % i for i in range(5000)) + b"}", 400),
    ("single quotes", b"{'a':1}", 400), ("a comment", b"{/* */}", 400), ("a trailing comma", b'{"a":1,}', 400),
    ("leading zero", b'{"timeout_sec":01}', 400), ("a byte order mark", b"\xef\xbb\xbf{}", 400),
]


def check(name, good, why=""):
    global FAILED
    FAILED += not good
    print("ok %s: %s" % (LABEL, name) if good else "not ok %s: %s: %s" % (LABEL, name, str(why)[:400]), flush=True)


def ask(method, target, headers=(), body=b"", **kw):
    return raw.request(HOST, PORT, method, target, headers, body, **kw)


def is_error(name, a, statuses, code=None):
    statuses = statuses if isinstance(statuses, tuple) else (statuses,)
    said = a.json()
    e = said.get("error", {}) if isinstance(said, dict) else {}
    good = (a.status in statuses and isinstance(e.get("code"), str) and isinstance(e.get("message"), str)
            and (code is None or e["code"] == code)
            and a.headers.get("content-type", "").startswith("application/json") and "x-request-id" in a.headers)
    check(name, good, "%d %s %r" % (a.status, a.headers.get("content-type"), a.body[:200]))


def test_bodies():
    for name, body, status in BODIES:
        for route in ("/v1/capsules", "/v1/auth/login"):
            is_error("%s to %s" % (name, route), ask("POST", route, [KEY, JSON], body), status, "invalid_request")
    is_error("2 MiB", ask("POST", "/v1/capsules", [KEY, JSON], b'{"name":"' + b"x" * (2 << 20) + b'"}'), 413, "too_large")
    is_error("2 MiB, chunked", ask("POST", "/v1/capsules", [KEY, JSON, "Transfer-Encoding: chunked"],
             b"200000\r\n" + b"x" * (2 << 20) + b"\r\n0\r\n\r\n"), 413, "too_large")
    a = ask("POST", "/v1/auth/login", [JSON, "Transfer-Encoding: chunked"],
            b'9\r\n{"email":\r\n21;ext=1\r\n"a@b.example","password":"wrong"}\r\n0\r\n\r\n')
    is_error("a chunked body is read whole", a, 401, "unauthorized")


def test_paths():
    for name, target, status in [
            ("unknown path", "/v1/nothing", 404), ("unknown path below a known one", "/v1/health/x", 404),
            ("double slash", "/v1//health", (400, 404)), ("%2F in a path", "/v1%2Fhealth", 404), ("%00", "/v1/health%00", (400, 404)),
            ("%0a", "/v1/health%0aX-Evil:%201", (400, 404)), ("a broken escape", "/v1/capsules/%zz", (400, 404)),
            ("dots", "/v1/../v1/health", (400, 404)), ("encoded dots", "/v1/%2e%2e/%2e%2e/etc/passwd", (400, 404)),
            ("an id of another kind", "/v1/capsules/usr-0000000000000000000000001", 400),
            ("an id that is too large", "/v1/capsules/cl-zzzzzzzzzzzzzzzzzzzzzzzzz", 400),
            ("an id that is too short", "/v1/capsules/cl-1", 400), ("an id in capitals", "/v1/capsules/CL-0000000000000000000000001", 400),
            ("an id that nobody has", "/v1/capsules/cl-0000000000000000000000001", 404),
            ("a long path", "/v1/" + "a" * 7000, (404, 414)), ("a huge path", "/v1/" + "a" * 70000, (414, 431)),
            ("a bad limit", "/v1/capsules?limit=0", 400), ("a limit that is no number", "/v1/capsules?limit=x", 400),
            ("a bad cursor", "/v1/capsules?cursor=%00%ff", 400)]:
        is_error(name, ask("GET", target, [KEY]), status)
    a = ask("GET", "http://%s:%d/v1/health" % (HOST, PORT))
    check("absolute form", a.status == 200, a.status)
    is_error("a page that is not there", ask("GET", "/.git/config"), 404)
    is_error("server files", ask("GET", "/..%2f..%2fetc/passwd"), (400, 404))


def test_methods():
    a = ask("DELETE", "/v1/health")
    is_error("wrong method", a, 405, "method_not_allowed")
    check("wrong method has Allow", "GET" in a.headers.get("allow", ""), a.headers)
    for method in ("PROPFIND", "CONNECT", "FROB", "get"):
        is_error("method " + method, ask(method, "/v1/health"), (400, 405, 501))
    a = ask("TRACE", "/v1/health", ["Cookie: secret", KEY])
    check("TRACE is refused and repeats nothing", a.status in (400, 404, 405, 501) and b"secret" not in a.body, a.status)
    a = ask("HEAD", "/v1/health")
    check("HEAD has headers and no body", a.status == 200 and not a.body, "%d %r" % (a.status, a.body[:80]))
    is_error("wrong method on the gateway's path", ask("PUT", "/v1/capsules/cl-0000000000000000000000001/exec", [KEY], b"{}"), 405)


def test_credentials():
    bad = ["X-API-Key: htc_" + "0" * 40]
    is_error("no credential", ask("GET", "/v1/capsules"), 401, "unauthorized")
    is_error("a key with a wrong checksum", ask("GET", "/v1/capsules", bad), 401, "unauthorized")
    is_error("an empty key", ask("GET", "/v1/capsules", ["X-API-Key: "]), 401, "unauthorized")
    is_error("the key twice", ask("GET", "/v1/capsules", [KEY, KEY]), (400, 401))
    is_error("a bad key before a good one", ask("GET", "/v1/capsules", bad + [KEY]), (400, 401))
    is_error("a good key before a bad one", ask("GET", "/v1/capsules", [KEY] + bad), (400, 401))
    is_error("X_API_Key is no credential", ask("GET", "/v1/capsules", [KEY.replace("X-API-Key", "X_API_Key")]), 401)
    a = ask("GET", "/v1/capsules", [KEY, bad[0].replace("X-API-Key", "X_API_Key")])
    check("X_API_Key does not hide X-API-Key", a.status == 200, a.status)
    for value in ("Basic YTpi", "Bearer", "Bearer ", "Bearer a.b.c", "bearer eyJhbGciOiJub25lIn0.e30.", "Bearer " + "a" * 6000):
        is_error("Authorization: " + value[:30], ask("GET", "/v1/me", ["Authorization: " + value]), 401, "unauthorized")
    for path in ("exec", "files/read", "files/write"):
        target = "/v1/capsules/cl-0000000000000000000000001/" + path
        is_error("gateway %s without credential" % path, ask("POST", target, [JSON], b'{"path":"/x","cmd":"id"}'), 401, "unauthorized")
        is_error("gateway %s with a bad key" % path, ask("POST", target, [JSON] + bad, b'{"path":"/x","cmd":"id"}'), 401, "unauthorized")


def test_headers():
    a = ask("GET", "/v1/health", ["X-Request-Id: mine-1.2_3"])
    check("X-Request-Id is kept", a.headers.get("x-request-id") == "mine-1.2_3", a.headers)
    for value in ("a" * 65, "a b", "a/../b", "<x>"):
        a = ask("GET", "/v1/health", ["X-Request-Id: " + value])
        check("X-Request-Id %s is replaced" % value[:10], a.headers.get("x-request-id", value) != value, a.headers)
    is_error("32 KiB of headers", ask("GET", "/v1/health", ["X-A: " + "a" * 32768]), (400, 431))
    is_error("a header without colon", ask("GET", "/v1/health", ["X-A"]), 400)
    is_error("Transfer-Encoding and Content-Length", ask("POST", "/v1/auth/login",
             ["Transfer-Encoding: chunked", "Content-Length: 4", JSON], b"0\r\n\r\nGET /x HTTP/1.1\r\n\r\n"), (400, 401, 413))
    is_error("two Content-Lengths", raw.send(HOST, PORT, b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
             b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}x"), 400)
    is_error("a negative Content-Length", raw.send(HOST, PORT, b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\n"
             b"Connection: close\r\nContent-Length: -1\r\n\r\n"), (400, 413))
    is_error("an unknown Transfer-Encoding", ask("POST", "/v1/auth/login", ["Transfer-Encoding: gzip", JSON], b"x"), (400, 411, 501))
    is_error("no Host", raw.send(HOST, PORT, b"GET /v1/health HTTP/1.1\r\nConnection: close\r\n\r\n"), 400)
    is_error("two Hosts", ask("GET", "/v1/health", ["Host: other"]), 400)
    is_error("a form", ask("POST", "/v1/auth/login", ["Content-Type: application/x-www-form-urlencoded"], b"a=b"), (400, 415))
    a = ask("GET", "/v1/capsules", [KEY])
    check("answers with a credential are not stored", a.headers.get("cache-control") == "private, no-store", a.headers)
    for name, a in (("API", a), ("error", ask("GET", "/v1/nothing")), ("page", ask("GET", "/"))):
        h = a.headers
        check(name + ": security headers", h.get("x-content-type-options") == "nosniff" and h.get("x-frame-options") == "DENY"
              and h.get("referrer-policy") == "no-referrer" and "default-src 'none'" in h.get("content-security-policy", ""), h)
        check(name + ": no HSTS over plain HTTP", "strict-transport-security" not in h, h)


def test_half_requests():
    """What a client says and does not do."""
    for name, data in [
            ("garbage", b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03"), ("an empty request", b"\r\n\r\n\r\n"),
            ("a body that is too short", b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"),
            ("a chunk that is no number", b"POST /v1/auth/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n"),
            ("a body that ends early at the gateway", b"POST /v1/capsules/cl-0000000000000000000000001/files/write?path=/x HTTP/1.1\r\n"
             b"Host: x\r\n" + KEY.encode() + b"\r\nContent-Length: 1000000\r\n\r\nabc")]:
        a = raw.send(HOST, PORT, data, half_close=True)
        check(name + " gets no 2xx and no 5xx", a.status == 0 or 400 <= a.status < 500, "%d %r" % (a.status, a.body[:100]))
    a = ask("GET", "/v1/health")
    check("well afterwards", a.status == 200, a.status)


def main():
    for test in (test_bodies, test_paths, test_methods, test_credentials, test_headers, test_half_requests):
        try:
            test()
        except OSError as e:
            check(test.__name__, False, "%s: %s" % (type(e).__name__, e))
    return 1 if FAILED else 0


if __name__ == "__main__":
    sys.exit(main())
