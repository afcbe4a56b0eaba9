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


def host_session():
    ok = b"\x88\x0f\x10\x0aapplication"[:3]
    yield bytes([7]) + piece(SETTINGS + frame(4, 1, 0)) + bytes([7]) + piece(frame(1, 4, 5, b"\x88")) + bytes([7]) + \
        piece(frame(0, 0, 5, b"x" * 150)) + bytes([1]) + piece(frame(0, 1, 5, b"end"))
    yield bytes([0]) + piece(SETTINGS + frame(1, 4, 1, b"\x89") + frame(0, 1, 1)) + bytes([8]) + \
        piece(frame(1, 5, 3, b"\x8d") + frame(3, 0, 7, b"\0\0\0\2"))
    yield bytes([7]) + piece(SETTINGS) + bytes([0]) + piece(frame(1, 4, 1, b"\x89\0\x0dx-hutch-nonce\x040123") + frame(7, 0, 0, b"\0" * 8))
    yield bytes([0]) + piece(frame(4, 0, 0, struct.pack(">HIHI", 4, 1 << 20, 3, 1)) + frame(8, 0, 0, b"\0\1\0\0") + ok)


def main():
    target, folder = sys.argv[1:]
    for i, data in enumerate(globals()[target]()):
        with open(os.path.join(folder, f"seed-{i}"), "wb") as f:
            f.write(data)


main()
