#!/usr/bin/env python3
"""seeds.py - writes a fuzz target's first inputs: usage: seeds.py TARGET OUTDIR"""
import gzip
import json
import os
import struct
import sys


def frame(kind, flags, stream, body=b""):
    return struct.pack(">I", len(body))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + body


def piece(data):
    """As fuzz_piece() reads it; longer ones in steps of 300."""
    if len(data) <= 200:
        return bytes([len(data)]) + data
    n = -(-len(data) // 300)
    return bytes([200 + n]) + data.ljust(n * 300, b" ")


def connect(message, flags=0):
    return struct.pack(">BI", flags, len(message)) + message


FORM = (b'--b\r\nContent-Disposition: form-data; name="file"; filename="/tmp/x"\r\n\r\ndata\r\n-\r\n--\r\n--b\r\n'
        b'content-disposition: form-data; name="path"\r\n\r\n\r\n--b--\r\nepilogue')
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX: y\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 103 Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n0\r\nT: v\r\n\r\n"
UPGRADE = b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nbytes"
START = json.dumps({"process": {"cmd": "x", "args": ["a"]}, "path": "~/x", "depth": "3"}).encode()
INIT = json.dumps({"epoch": 1, "accessToken": "t", "envVars": {"A": "b"}, "entropy": "AAAA", "hostname": "h",
                   "timestamp": "2026-11-21T12:00:00.5+01:00", "machineId": "0" * 32, "defaultUser": "root",
                   "caBundle": "-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"}).encode()
HEAD = b"\x82\x86\x41\x05guest\x04\x07/health"
POST = b"\x83\x86\x41\x05guest\x04\x05/init"
SETTINGS = frame(4, 0, 0)


def gateway():
    yield b"\0" + connect(START) + connect(b"{}", 2)
    yield b"\1" + FORM
    yield b"\2 boundary=\"a\\\"b\"; charset=utf-8"
    for flag in (b"\0", b"\1"):
        for a in (ANSWER, CHUNKED, UPGRADE, b"HTTP/1.0 404 No\r\n\r\nto the end"):
            yield b"\3" + flag + a
    yield b"\4" + "aä☃😀\xff".encode() + b"\xed\xa0\x80\xc0\x80\xf0\x9f"


def guest_parse():
    yield b"\0" + FORM
    yield b"\1" + gzip.compress(b"hello" * 100) + gzip.compress(b"more")
    yield b"\2" + b"hello hello hello"
    for text in (b"path=%2Fa%20b+c&x=1", b"2026-11-21T12:00:00.123456789Z", b"1795300000000000000", b"SGVsbG8=", b"-12",
                 b"gzip;q=0.5, identity;q=0, *;q=0.000", b"-----BEGIN CERTIFICATE-----\nTUlJ\n-----END CERTIFICATE-----\n"):
        yield b"\3" + text
    yield b"\4" + INIT


def guest_session():
    call = bytes([0, 7]) + piece(b"") + piece(INIT)
    yield b"\1" + call + bytes([4, 5]) + piece(b"5") + piece(connect(START))
    yield b"\1" + call + bytes([5, 5]) + piece(b"") + piece(connect(b'{"start":{}}') + connect(b'{"keepalive":{}}'))
    yield b"\1" + call + bytes([7, 12]) + piece(b"Basic:cm9vdDo=") + piece(START) + bytes([9, 4]) + piece(b"") + piece(b"{}")
    yield b"\1" + call + bytes([64 + 3, 16 + 64]) + piece(b"v1_x&username=root") + piece(b"")
    yield b"\0" + piece(SETTINGS) + piece(frame(1, 5, 1, HEAD)) + piece(frame(6, 0, 0, b"12345678"))
    yield b"\0" + piece(SETTINGS + frame(1, 4, 1, POST) + frame(0, 1, 1, INIT[:60])) + piece(frame(3, 0, 1, b"\0\0\0\x08"))
    yield b"\0" + piece(SETTINGS + frame(1, 0, 1, HEAD[:5]) + frame(9, 4, 1, HEAD[5:])) + piece(frame(8, 0, 0, b"\0\0\1\0"))


def guest_link():
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
    cut = frame(1, 4, 1, POST) + frame(0, 0, 1, INIT)[:40]
    for quiet in (b"\0", b"\1"):
        yield quiet
        yield quiet + b"\0" + piece(hello + cut) + b"\4" + piece(frame(1, 5, 3, HEAD))
        yield quiet + b"\2\4\0" + piece(cut) + b"\1\2\3\0" + piece(hello) + b"\0" + piece(b"x" * 150)
        yield quiet + b"\3\2\0" + piece(hello) + b"\0" + piece(hello + cut) + b"\2\13\2\3\1\4" + piece(b"\0" * 30)


def host_session():
    ok = b"\x88\x0f\x10\x0aapplication"[:3]
    yield bytes([7]) + piece(SETTINGS + frame(4, 1, 0)) + bytes([7]) + piece(frame(1, 4, 5, b"\x88")) + bytes([7]) + \
        piece(frame(0, 0, 5, b"x" * 150)) + bytes([1]) + piece(frame(0, 1, 5, b"end"))
    yield bytes([0]) + piece(SETTINGS + frame(1, 4, 1, b"\x89") + frame(0, 1, 1)) + bytes([8]) + \
        piece(frame(1, 5, 3, b"\x8d") + frame(3, 0, 7, b"\0\0\0\2"))
    yield bytes([7]) + piece(SETTINGS) + bytes([0]) + piece(frame(1, 4, 1, b"\x89\0\x0dx-hutch-nonce\x040123") + frame(7, 0, 0, b"\0" * 8))
    yield bytes([0]) + piece(frame(4, 0, 0, struct.pack(">HIHI", 4, 1 << 20, 3, 1)) + frame(8, 0, 0, b"\0\1\0\0") + ok)


def hello(name, cut):
    """A TLS ClientHello, in records of cut bytes."""
    names = struct.pack(">HBH", len(name) + 3, 0, len(name)) + name
    rest = b"\0\x17\0\0" + struct.pack(">HH", 0, len(names)) + names
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + struct.pack(">H", len(rest)) + rest
    body = b"\1" + struct.pack(">I", len(body))[1:] + body
    cuts = [body[i:i + cut] for i in range(0, len(body), cut)]
    return b"".join(b"\x16\3\1" + struct.pack(">H", len(c)) + c for c in cuts)


def dns(*labels, answers=(), flags=1):
    name = b"".join(bytes([len(x)]) + x for x in labels) + b"\0"
    rest = b"".join(b"\xc0\x0c" + struct.pack(">HHIH", kind, 1, 60, len(data)) + data for kind, data in answers)
    return struct.pack(">HBBHHHH", 0, flags, 0, 1, len(answers), 0, 0) + name + b"\0\1\0\1" + rest


def egress():
    for at in (hello(b"www.good.example", 16384), hello(b"x.example", 20), b"GET / HTTP/1.1\r\nA: b\r\nHost: Ok.example:80\r\n\r\n"):
        yield b"\0" + at
    for how, labels in ((0, (b"ok", b"example")), (0, (b"a", b"GOOD", b"example")), (1, (b"www", b"other")), (1, (b"bad", b"example")),
                        (0, (b"ok", b"example\0x", b"other"))):
        said = dns(*labels, answers=((5, b"\1a\xc0\x0c"), (1, b"\1\2\3\4")), flags=0x81)
        yield b"\1" + bytes([how]) + piece(dns(*labels)) + said
        yield b"\1" + bytes([how | 2]) + piece(struct.pack(">H", len(dns(*labels))) + dns(*labels)) + struct.pack(">H", len(said)) + said
        yield b"\1" + bytes([how]) + piece(dns(*labels)) + dns(*labels, answers=((1, b"\x0a\0\0\1"),), flags=0x81)
    said = dns(b"ok", b"example", answers=((1, b"\1\2\3\4"), (28, bytes(16)), (1, b"\5\6\7\x08")), flags=0x81)
    yield b"\2" + piece(said[:12]) + said[12 + 12 + 4:]


def host_parse():
    hello = b'{"QMP":{"version":{},"capabilities":["oob"]}}\r\n{"return":{},"id":1}\r\n'
    event = b'{"timestamp":{"seconds":1},"event":"STOP","data":{"device":"d1"}}\r\n'
    for habits in (0, 1, 2, 4, 8, 16):
        yield bytes([0, habits]) + hello + event + b'{"return":{"status":"running"},"id":2}\n{"error":{"class":"GenericError","desc":"no"},"id":3}\n'
    yield b"\0\0" + hello + b'{"return":\0 {},"id":2}\n\r\n{"id":9}\n'
    sums = ["0" * 64, None]
    about = {"format": 1, "kind": "memory", "parent": "f" * 64, "cpu_class": "x", "qemu": "7.2", "machine": "microvm", "template": "python",
             "build": "1", "vcpus": 1, "memory_mb": 512, "disk_size": 1 << 30,
             "files": [{"name": "memory", "size": (4 << 20) + 1, "chunks": sums}, {"name": "state", "size": 9, "chunks": sums[:1]}]}
    yield b"\1" + json.dumps(about).encode()
    yield b"\1" + json.dumps(dict(about, template="../x", parent=None)).encode()
    for number in (5, -1, (1 << 63) - 1):
        stats = {"mem_used": number, "mem_cache": 1, "processes": number, "net_rx": number, "net_tx": 1}
        blocks = [{"device": "d1", "stats": {"rd_bytes": number, "wr_bytes": number}}, {"stats": {"rd_bytes": number}}]
        yield b"\2" + piece(json.dumps(stats).encode()) + piece(json.dumps(blocks).encode())


def spoken(opcode, data, fin=0x80):
    """A frame of a WebSocket's client, masked."""
    size = bytes([0x80 | len(data)]) if len(data) < 126 else struct.pack(">BH", 0x80 | 126, len(data))
    return bytes([fin | opcode]) + size + b"\1\2\3\4" + bytes(c ^ (i % 4 + 1) for i, c in enumerate(data))


def websocket():
    said = spoken(1, b'{"type":"x"}') + spoken(9, b"ping") + spoken(1, "aä".encode()[:2], 0) + spoken(10, b"") + spoken(0, "aä".encode()[2:])
    said += spoken(1, b"x" * 300) + spoken(1, b"") + spoken(8, b"\3\xe8bye")
    for habits in (0, 1, 3, 4, 8, 16, 32):
        yield bytes([0, habits]) + said
        yield bytes([0, habits]) + said[:-9]
    for which in (3, 0, 1, 2, 3 | 4 | 1 << 3):
        yield bytes([1, which]) + b"dGhlIHNhbXBsZSBub25jZQ=="
    for ours in (0, 1):
        yield bytes([2, ours]) + said + spoken(10, b"12345678") + spoken(2, b"y" * 200)
    for where in (b"8080-cl-0123456789abcdefghijklmno.box.example", b"3000-f5lxx1zz5pnorynqglhzmsp33.BOX.example:80",
                  b"0123456789abcdefghijklmno 8080"):
        yield b"\3" + where


def shared():
    about = {"name": "x", "kind": "bc", "mail": "a@b", "raw": {"a": [1, 2.5e3, None]}, "when": "2026-11-21T12:00:00Z", "flag": False,
             "small": -5, "big": 1 << 60, "at": 5, "share": 0.25, "id": "cl-" + "0" * 25, "tags": ["a", "b:c"], "labels": {"k": "v"},
             "part": {"word": "w"}, "parts": [{"word": "w", "count": 9}, {"word": "\u00e4"}]}
    for reader in (b"\0", b"\1"):
        yield reader + json.dumps(about).encode()
    yield b"\0" + '["ä☃\\ud83d\\ude00\\n", true, -0.5e-3, "", {"":0}]'.encode()
    for at, text in enumerate((b"x", b"bc", b"a@b.c", b"{}", b"2026-11-21T12:00:00Z", b"* *", b"true", b"-5", b"123456789012345678", b"5", b"0.5",
                               b"cl-" + b"0" * 25, b"a,b,,c")):
        yield b"\2" + bytes([at]) + text
    for text in (b"*/5 0-6,9 * * 1-5/2", b"0 0 29 2 *", b"59 23 31 12 7", b"0 0 31 2 *", b" 1  2 3 4 5 "):
        yield b"\3\7" + text
    for text in (b"<a href='x'>&\"\r\n", b"{{#team}}{{team}}{{/team}}{{^x}} {{{y}}} {{& z}}{{! remark }}\n{{/x}}"):
        yield b"\4" + text
    for text in (b"10.0.0.0/8", b"::ffff:1.2.3.4", b"fe80::1/64, 1.2.3.4", b"cl-0123456789abcdefghijklmno", b"2026-11-21T12:00:00.5+01:00",
                 b"01980000-0000-7000-8000-000000000000"):
        yield b"\5" + text
    mark = struct.pack(">HIHI", 0xf4a6, 0x01020304, 0xf4a7, 0x05060708)
    yield b"\6\0" + frame(6, 1, 0, b"12345678") + frame(4, 0, 0, mark)[:-3]
    yield b"\6\1" + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(4, 0, 0, mark)


def main():
    target, folder = sys.argv[1:]
    for i, data in enumerate(globals()[target]()):
        with open(os.path.join(folder, f"seed-{i}"), "wb") as f:
            f.write(data)


main()
