"""guest_session.py - checks of the guest agent: the session."""
import json
import os
import socket
import struct

from guest_lib import P, check, same


@check("agent")
def broken_sessions_harm_nobody(a):
    preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    for junk in (b"GET / HTTP/1.1\r\n\r\n", b"\0" * 1000, preface[:10], preface + b"\xff" * 100,
                 preface + b"\0\0\0\4\0\0\0\0\0" + os.urandom(5000), b""):
        s = socket.socket(socket.AF_UNIX)
        s.connect(a.path)
        s.sendall(junk)
        s.shutdown(socket.SHUT_WR)
        s.settimeout(60)
        try:
            while s.recv(65536):
                pass
        except ConnectionError:
            pass
        s.close()
    same(a.call("GET", "/health")[0], 204)


def raw_call(path, stream=1):
    """A session's first bytes and one GET, without curl: preface, SETTINGS, HEADERS (literal)."""
    block = b"\x82\x86\x41\x05guest\x04" + bytes([len(path)]) + path.encode()
    return (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0\0\0\4\0\0\0\0\0" +
            struct.pack(">I", len(block))[1:] + b"\1\5" + struct.pack(">I", stream) + block)


def answers(s, wanted):
    """How many responses come: those that are wanted are waited for, others have a moment."""
    got = b""
    try:
        while True:
            s.settimeout(60 if count(got) < wanted else 1)
            if not (data := s.recv(65536)):
                break
            got += data
    except (TimeoutError, ConnectionError):
        pass
    return count(got)


def count(got):
    n = 0
    while len(got) >= 9:
        length, kind = int.from_bytes(got[:3], "big"), got[3]
        n += kind == 1
        got = got[9 + length:]
    return n


@check("agent")
def a_second_preface_begins_anew(a):
    s = socket.socket(socket.AF_UNIX)
    s.connect(a.path)
    for _ in range(3):
        s.sendall(raw_call("/health"))
        same(answers(s, 1), 1)
    s.close()


@check("agent")
def a_preface_in_a_body_is_data(a):
    s = socket.socket(socket.AF_UNIX)
    s.connect(a.path)
    inner = raw_call("/health")
    block = b"\x83\x86\x41\x05guest\x04\x05/init"
    s.sendall(raw_call("/health") + struct.pack(">I", len(block))[1:] + b"\1\4\0\0\0\3" + block +
              struct.pack(">I", len(inner) + 10)[1:] + b"\0\0\0\0\0\3" + b"{" * 10)
    same(answers(s, 1), 1)
    s.sendall(inner)  # a read of its own, as the port would give it
    same(answers(s, 0), 0)
    s.sendall(b"\0\0\1\0\1\0\0\0\3}")
    same(answers(s, 1), 1)
    s.close()


@check("agent")
def a_new_epoch_replaces_all(a):
    a.epoch = 4
    same(a.init(envVars={"Z": "z"}, machineId="0" * 32)[0], 204)
    same(a.ok(P + "List", {"all": True}), {})
    envs = json.loads(a.call("GET", "/envs")[2])
    same((envs.get("A"), envs["Z"], "E2B_SANDBOX_ID" in envs), (None, "z", False))
    a.epoch = 5
    same(a.init(accessToken="another")[0], 204)
    same(a.call("GET", "/envs")[0], 401)
    same(a.call("GET", "/envs", headers={"x-access-token": "another"})[0], 200)
    a.epoch = 6
    same(a.init()[0], 204)
