"""guest_bounds.py - checks of the guest agent: what callers can make it hold, in numbers."""
import json
import struct
import time

import h2_client
from guest_files import put
from guest_lib import P, TOKEN, check, memory, same

MB = 1 << 20


def head(method, path, *more):
    return [(":method", method), (":scheme", "http"), (":authority", "guest"), (":path", path),
            ("x-access-token", TOKEN), *more]


@check("agent")
def many_slow_readers_have_a_bound_together(a):
    put(a, f"{a.dir}/large", bytes(8 * MB))
    before = memory(a)
    s = h2_client.Session(a.path, window=0, timeout=30)
    for _ in range(500):
        s.request(head("GET", f"/files?path={a.dir}/large"), h2_client.END_STREAM)
    time.sleep(3)
    grown = memory(a) - before
    if grown > 110 * MB:  # 8 MiB and what each may have beyond, twice: buffers grow in powers of two
        raise AssertionError(f"500 slow readers cost {grown // MB} MB")
    print(f"# 500 readers who take nothing: {grown / MB:.0f} MB")
    same(a.call("GET", "/health")[0], 204)
    s.close()


@check("agent")
def there_are_at_most_512_streams(a):
    s = h2_client.Session(a.path, window=0)
    opened = [s.request(head("POST", P + "StreamInput", ("content-type", "application/connect+json")))
              for _ in range(512)]
    one = s.request(head("GET", "/health"), h2_client.END_STREAM)
    try:
        s.answer(one)
        raise AssertionError("the 513th stream was taken")
    except ConnectionError as why:
        same(str(why).split()[0] in ("reset", "the"), True)
    s.close()
    same(len(opened), 512)
    same(a.call("GET", "/health")[0], 204)


@check("agent")
def large_messages_have_a_bound_together(a):
    s = h2_client.Session(a.path, timeout=30)
    kinds = head("POST", P + "Start", ("content-type", "application/connect+json"))
    refused = 0
    for _ in range(4):
        stream = s.request(kinds)
        s.data(stream, struct.pack(">BI", 0, 16 * MB))
        sent, ended = 0, False
        while sent < 15 * MB and not ended:
            s.socket.settimeout(30)
            for _ in range(4):
                s.data(stream, b" " * 16384)
                sent += 16384
            s.socket.settimeout(0.005)
            try:
                while True:
                    kind, flags, of, body = s.frame()
                    if of == stream and kind == h2_client.DATA and flags & h2_client.END_STREAM:
                        ended = True
                        refused += b"too many large messages" in body
            except TimeoutError:
                pass
    same(refused, 1, "refusals")
    s.close()
    time.sleep(0.2)
    same(json.loads(a.call("POST", P + "List", b"{}", {"content-type": "application/json"})[2]).get("code"), None)
