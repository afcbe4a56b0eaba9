"""guest_ports.py - checks of the guest agent: CONNECT to ports, GET /ports."""
import json
import socket
import struct
import threading
import time

import h2_client
from guest_lib import TOKEN, check, same, until


class Service:
    """Listens; talk(connection) runs in a thread for each that comes."""

    def __init__(self, talk, family=socket.AF_INET, address="127.0.0.1"):
        self.socket = socket.socket(family)
        self.socket.bind((address, 0))
        self.socket.listen(256)  # a full queue loses bytes: cookies
        self.port, self.talk = self.socket.getsockname()[1], talk
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                connection = self.socket.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.talk, args=(connection,), daemon=True).start()

    def close(self):
        self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


def echo(connection):
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.sendall(b"end")
    connection.close()


def tunnel(a, where, token=TOKEN, **more):
    """(session, stream, status)"""
    s = h2_client.Session(a.path, **more)
    head = [(":method", "CONNECT"), (":authority", str(where))] + ([("x-access-token", token)] if token else [])
    stream = s.request(head)
    return s, stream, s.answer(stream)


@check("agent")
def a_tunnel_carries_bytes_both_ways(a):
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::1")):
        service = Service(echo, family, address)
        s, stream, status = tunnel(a, f"localhost:{service.port}")
        same(status, 200, address)
        s.data(stream, b"hello")
        same(s.body(stream, 5), (b"hello", "more"))
        s.data(stream, b"bye", h2_client.END_STREAM)
        same(s.body(stream), (b"byeend", "end"))
        s.close()
        service.close()


@check("agent")
def a_tunnel_to_nobody_is_502(a):
    lonely = socket.socket()
    lonely.bind(("127.0.0.1", 0))
    s, stream, status = tunnel(a, f"localhost:{lonely.getsockname()[1]}")
    same(status, 502)
    body, how = s.body(stream)
    same((json.loads(body), how), ({"code": 502, "message": "port is not open"}, "end"))
    s.close()


@check("agent")
def tunnels_ask_for_the_token_and_a_port(a):
    service = Service(echo)
    for where, token, want in ((f"localhost:{service.port}", None, 401), (f"localhost:{service.port}", "no", 401),
                               (f"example.com:{service.port}", TOKEN, 400), ("localhost:0", TOKEN, 400),
                               ("localhost:65536", TOKEN, 400), ("localhost:8x", TOKEN, 400), ("x", TOKEN, 400)):
        s, stream, status = tunnel(a, where, token)
        same(status, want, where)
        same(s.body(stream)[1], "end")
        s.close()
    service.close()


@check("agent")
def the_service_may_end_first(a):
    heard, done = [], threading.Event()

    def talk(connection):
        connection.sendall(b"first")
        connection.shutdown(socket.SHUT_WR)
        while data := connection.recv(65536):
            heard.append(data)
        done.set()

    service = Service(talk)
    s, stream, _ = tunnel(a, f"localhost:{service.port}")
    same(s.body(stream), (b"first", "end"))
    s.data(stream, b"still heard", h2_client.END_STREAM)
    same((done.wait(60), b"".join(heard)), (True, b"still heard"))
    s.close()
    service.close()


@check("agent")
def breaks_are_resets_on_both_sides(a):
    broken, heard = threading.Event(), threading.Event()

    def talk(connection):
        if connection.recv(1) == b"r":
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            return
        heard.set()
        try:
            connection.recv(1)
        except ConnectionResetError:
            broken.set()

    service = Service(talk)
    s, stream, _ = tunnel(a, f"localhost:{service.port}")
    s.data(stream, b"r")
    same(s.body(stream)[1], "reset")
    s.close()
    s, stream, _ = tunnel(a, f"localhost:{service.port}")
    s.data(stream, b"k")
    same(heard.wait(60), True, "the byte")
    s.reset(stream)
    same(broken.wait(60), True, "the service's reset")
    broken.clear()
    heard.clear()
    s.close()
    s, stream, _ = tunnel(a, f"localhost:{service.port}")
    s.data(stream, b"k")
    same(heard.wait(60), True, "the byte")
    s.close()  # the whole session goes, as before a sleep
    same(broken.wait(60), True, "the service's reset")
    service.close()


@check("agent")
def a_slow_side_slows_the_other(a):
    sent = [0]

    def flood(connection):
        try:
            while True:
                sent[0] += connection.send(b"x" * 65536)
        except OSError:
            pass

    service = Service(flood)
    s, stream, _ = tunnel(a, f"localhost:{service.port}", window=65535)

    def stands():
        before = sent[0]
        time.sleep(1)
        return sent[0] == before > 0
    until("the service that nobody hears stands", stands)
    got, how = s.body(stream, 5_000_000)
    same((how, got.strip(b"x")), ("more", b""))
    s.close()
    service.close()


@check("agent")
def a_service_that_does_not_read_stops_the_sender(a):
    gate, heard = threading.Event(), []

    def talk(connection):
        gate.wait(120)
        while data := connection.recv(65536):
            heard.append(len(data))
        connection.close()

    service = Service(talk)
    s, stream, _ = tunnel(a, f"localhost:{service.port}")
    # no more than the window comes back before the service reads: what was not taken is not opened
    total = 128 * 1024
    for _ in range(total // 16384):
        s.data(stream, b"y" * 16384)
    gate.set()
    s.data(stream, b"", h2_client.END_STREAM)
    same(s.body(stream), (b"", "end"))
    same(sum(heard), total)
    s.close()
    service.close()


@check("agent")
def many_tunnels_at_once(a):
    service = Service(echo)
    s = h2_client.Session(a.path)
    head = [(":method", "CONNECT"), (":authority", f"localhost:{service.port}"), ("x-access-token", TOKEN)]
    streams = [s.request(head) for _ in range(200)]
    for i, stream in enumerate(streams):
        s.data(stream, b"%d" % i, h2_client.END_STREAM)
    bodies, ends = {n: b"" for n in streams}, 0
    while ends < len(streams):
        kind, flags, stream, body = s.frame()
        if kind == h2_client.DATA:
            bodies[stream] += body
            ends += flags & h2_client.END_STREAM
    same(list(bodies.values()), [b"%dend" % i for i in range(len(streams))])
    s.close()
    service.close()


@check("agent")
def ports_are_listed(a):
    same(a.call("GET", "/ports", headers={"x-access-token": None})[0], 401)
    four, six = Service(echo), Service(echo, socket.AF_INET6, "::1")
    status, _, body = a.call("GET", "/ports")
    same(status, 200)
    ports = json.loads(body)["ports"]
    same([p for p in ports if p["port"] == four.port], [{"port": four.port, "address": "127.0.0.1", "family": 4}])
    same([p for p in ports if p["port"] == six.port], [{"port": six.port, "address": "::1", "family": 6}])
    same(ports, sorted(ports, key=lambda p: (p["port"], p["address"])))
    four.close()
    six.close()
    until("it is not listed", lambda: not [p for p in json.loads(a.call("GET", "/ports")[2])["ports"] if p["port"] == four.port])


@check("machine")
def the_machines_ports_are_reached(m):
    script = ("import socket; s = socket.create_server(('127.0.0.1', 8080))\n"
              "while True:\n c = s.accept()[0]; c.sendall(c.recv(9)[::-1]); c.close()")
    # the port has one caller at a time: the service may not hold it
    m.sh(f'setsid python3 -c "{script}" >/dev/null 2>&1 </dev/null & sleep 0.1')
    for _ in range(360):
        if '{"port":8080,"address":"127.0.0.1","family":4}' in m.call("GET", "/ports")[2].decode():
            break
        time.sleep(0.5)
    s, stream, status = tunnel(m, "localhost:8080")
    same(status, 200)
    s.data(stream, b"123456789")
    same(s.body(stream), (b"987654321", "end"))
    s.close()
    s, stream, status = tunnel(m, "localhost:8081")
    same(status, 502)
    s.close()
