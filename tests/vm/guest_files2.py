"""guest_files2.py - checks of the guest agent: /files signed, packed, composed."""
import base64
import gzip
import hashlib
import json
import os
import time
import zlib
from urllib.parse import quote

from guest_files import post_parts, put
from guest_lib import ME, TOKEN, check, has, same


def signed(path, op, user="", until=None, token=TOKEN):
    text = f"{path}:{op}:{user}:{token}" + (f":{until}" if until is not None else "")
    return "v1_" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")


def url(path, signature, user="", until=None):
    return (f"/files?path={quote(path, safe='')}" + (f"&username={user}" if user else "") +
            (f"&signature={quote(signature, safe='')}" if signature is not None else "") +
            (f"&signature_expiration={until}" if until is not None else ""))


def unsigned(a, method, where, body=None, **headers):
    status, _, answer = a.call(method, where, body, {"x-access-token": None, **headers})
    return status, answer


OCTETS = {"content-type": "application/octet-stream"}


@check("agent")
def signatures_open_files(a):
    path, soon = f"{a.dir}/si gn+ed", int(time.time()) + 60
    for user, until in (("", None), (ME.pw_name, None), ("", soon), (ME.pw_name, soon)):
        write = url(path, signed(path, "write", user, until), user, until)
        same(unsigned(a, "POST", write, b"data", **OCTETS)[0], 200)
        same(unsigned(a, "GET", url(path, signed(path, "read", user, until), user, until)), (200, b"data"))


@check("agent")
def bad_signatures_are_401(a):
    path, now = f"{a.dir}/sg", int(time.time())
    put(a, path, b"secret")
    good = signed(path, "read")
    for where, text in (
            (url(path, None), "signature missing"),
            (url(path, good[:-1] + ("A" if good[-1] != "A" else "B")), "signature invalid"),
            (url(path, signed(path, "write")), "signature invalid"),
            (url(path, good, ME.pw_name), "signature invalid"),
            (url(path, good, until=now + 60), "signature invalid"),
            (url(path + "x", good), "signature invalid"),
            (url(path, signed(path, "read", token="other")), "signature invalid"),
            (url(path, ""), "signature invalid"),
            (url(path, signed(path, "read", until="x"), until="x"), "signature invalid"),
            (url(path, signed(path, "read", until=now - 5), until=now - 5), "signature expired")):
        status, body = unsigned(a, "GET", where)
        same((status, json.loads(body)), (401, {"code": 401, "message": text}), where)
    same(a.call("GET", url(path, good), headers={"x-access-token": "wrong"})[0], 401)
    same(unsigned(a, "POST", "/files/compose" + url(path, good)[6:], b"{}")[0], 401)
    same(unsigned(a, "POST", url(path, good), b"x", **OCTETS)[0], 401)
    same(open(path).read(), "secret")


@check("agent")
def downloads_are_packed_when_accepted(a):
    path, data = f"{a.dir}/packed", b"the same again and again. " * 40000 + os.urandom(100000)
    put(a, path, data)

    def get(accept, **more):
        status, headers, body = a.call("GET", f"/files?path={path}", headers={"accept-encoding": accept, **more})
        return status, headers.get("content-encoding"), body

    for accept in ("gzip", "deflate, gzip;q=0.5", "*", "GZIP", "identity;q=0, gzip"):
        status, encoding, body = get(accept)
        same((status, encoding, gzip.decompress(body) == data), (200, "gzip", True), accept)
        if len(body) > 300000:
            raise AssertionError(f"{len(body)} bytes are not packed")
    for accept in ("identity", "gzip;q=0", "br", "gzip;q=0.0, *", ""):
        same(get(accept), (200, None, data), accept)
    same(get("gzip", range="bytes=0-2"), (206, None, data[:3]))
    for accept in ("identity;q=0", "*;q=0", "gzip;q=0, *;q=0.000"):
        same(get(accept)[0], 406, accept)
    put(a, path, b"")
    status, headers, _ = a.call("GET", f"/files?path={path}", headers={"accept-encoding": "gzip"})
    same((status, headers["content-length"]), (200, "0"))
    has(zlib.decompress(a.call("GET", "/files?path=/proc/self/status", headers={"accept-encoding": "gzip"})[2],
                        31).decode(), "hutch-guest")


@check("agent")
def uploads_may_be_packed(a):
    path, data = f"{a.dir}/unpacked", os.urandom(1 << 20) + bytes(5 << 20)
    packed = {"content-encoding": "gzip"}
    same(put(a, path, gzip.compress(data), **packed)[0], 200)
    same(open(path, "rb").read() == data, True)
    same(put(a, path, gzip.compress(b"one ") + gzip.compress(b"two"), **packed)[0], 200)
    same(open(path).read(), "one two")
    parts = gzip.compress(b'--XbX\r\nContent-Disposition: form-data; name="file"; filename="' + path.encode() +
                          b'"\r\n\r\nin a part\r\n--XbX--\r\n')
    same(a.call("POST", "/files", parts, {"content-type": "multipart/form-data; boundary=XbX", **packed})[0], 200)
    same(open(path).read(), "in a part")
    for bad in (b"plain", gzip.compress(data)[:-9], gzip.compress(b"x") + b"junk", b"", gzip.compress(b"x")[:-4] + b"0000"):
        same(put(a, path, bad, **packed)[0], 400, f"status of {bad[:20]}")
    same(open(path).read(), "in a part")
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


def compose(a, sources, to, **more):
    status, _, body = a.call("POST", "/files/compose", json.dumps(
        {"source_paths": sources, "destination": to, **more}).encode(), {"content-type": "application/json"})
    return status, json.loads(body)


@check("agent")
def files_are_composed(a):
    pieces = [os.urandom(n) for n in (9 << 20, 0, 5)]
    names = [f"{a.dir}/c/{i}" for i in range(3)]
    for name, data in zip(names, pieces):
        put(a, name, data)
    to = f"{a.dir}/composed/whole"
    same(compose(a, names, to), (200, {"name": "whole", "path": to, "type": "file"}))
    same((open(to, "rb").read() == b"".join(pieces), os.listdir(f"{a.dir}/c")), (True, []))
    put(a, names[0], b"+")
    same(compose(a, [to, names[0]], to)[0], 200)  # the target may be among the sources
    same((open(to, "rb").read() == b"".join(pieces) + b"+", os.path.exists(names[0])), (True, False))


@check("agent")
def what_cannot_be_composed(a):
    one, to = f"{a.dir}/c1", f"{a.dir}/c2"
    put(a, one, b"1")
    for sources, where, status in (([one, f"{a.dir}/none"], to, 404), ([], to, 400), ([one], "", 400), ([7], to, 400),
                                   ([a.dir], to, 400), ([one], a.dir, 400), ([one] * 1001, to, 400)):
        got = compose(a, sources, where)
        same((got[0], got[1]["code"]), (status, status))
    same(compose(a, [one], to, username="nobody-here"), (401, {"code": 401, "message": "invalid username: 'nobody-here'"}))
    same((open(one).read(), os.path.exists(to)), ("1", False))
    same([n for n in os.listdir(a.dir) if n.startswith(".hutch")], [])


@check("agent")
def several_files_have_their_names(a):
    parts = [("file", f"{a.dir}/s/{n}", n.encode()) for n in ("ä b", "c")]
    status, _, body = post_parts(a, "", parts)
    same((status, [e["path"] for e in json.loads(body)]), (200, [p[1] for p in parts]))


@check("machine")
def a_bundle_of_certificates_is_trusted(m):
    pem = "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"
    bundle = "/etc/ssl/certs/ca-certificates.crt"
    before = m.sh(f"cat {bundle} 2>/dev/null | md5sum; grep -c BEGIN {bundle}")
    m.epoch += 1
    same(m.init(caBundle="no certificate")[0], 400)
    same(m.init(caBundle=pem)[0], 204)
    has(m.sh(f"tail -n 4 {bundle}; cat /usr/local/share/ca-certificates/hutch.crt"), "TUlJ")
    m.epoch += 1
    same(m.init(caBundle=pem.replace("TUlJ", "TkV3"))[0], 204)
    same(m.sh(f"grep -c 'TUlJ\\|TkV3' {bundle}").strip(), "1")
    m.epoch += 1
    same(m.init()[0], 204)
    same(m.sh(f"cat {bundle} 2>/dev/null | md5sum; grep -c BEGIN {bundle}"), before)
