"""guest_hosts.py - checks of the guest agent in a machine: hosts that come, go and come back, on a busy processor.

Here the host speaks as hostagent/guest.c does: its SETTINGS begin with a mark, it says no more and drops what it hears
until the mark comes back.
"""
import os
import struct
import time

import h2_client
from guest_lib import TOKEN, check, same

MARK = 0xf4a6


class Host(h2_client.Session):
    """A marked session; the time until it was met is .took."""

    def __init__(self, path, timeout=60):
        mark, begin, self.hails = self.mark(), time.time(), 0
        super().__init__(path, 1, settings=mark)
        while (at := self.buffer.find(bytes([h2_client.SETTINGS, 0, 0, 0, 0, 0]) + mark)) < 3:
            try:
                more = self.socket.recv(65536)
            except TimeoutError:
                self.hails, mark = self.hails + 1, self.mark()
                self.socket.settimeout(1 << self.hails)
                self.socket.sendall(bytes(5 * 4096) + h2_client.PREFACE + h2_client.frame(h2_client.SETTINGS, 0, 0, mark))
                continue
            if not more:
                raise ConnectionError("the machine ended")
            self.buffer += more
        self.socket.settimeout(timeout)
        self.dropped, self.buffer = at - 3, self.buffer[at - 3:]
        self.took = time.time() - begin

    def mark(self):
        word = os.urandom(8)
        return b"".join(struct.pack(">H", MARK + i) + word[4 * i:4 * i + 4] for i in (0, 1))

    def ask(self, method, path, *more, flags=h2_client.END_STREAM):
        return self.request([(":method", method), (":scheme", "http"), (":authority", "guest"), (":path", path),
                             ("x-access-token", TOKEN), *more], flags)


def busy(m, n, seconds):
    """Programs that take all of the processor, before everybody else."""
    m.sh(f"for i in $(seq {n}); do setsid nice -n -15 timeout {seconds} sh -c 'while :; do :; done' >/dev/null 2>&1 & done")


def leave(h, how):
    """In the middle of things, as a host that is killed."""
    if how == "idle":
        pass
    elif how == "download":
        h.ask("GET", "/files?path=/usr/bin/git")
        time.sleep(0.02)
    elif how == "upload":
        s = h.ask("POST", "/files?path=/root/half", ("content-type", "application/octet-stream"), flags=0)
        h.socket.sendall(h2_client.frame(h2_client.DATA, 0, s, bytes(16384))[:5000 + s])
        time.sleep(0.02)
    h.close()


def meets(m, hosts, hows, pause):
    """Each host's first call is answered by the session it began. (seconds to be met)"""
    took = []
    for i in range(hosts):
        h = Host(m.path)
        nonce = f"{i:032x}"
        same(h.answer(h.ask("GET", "/health", ("x-hutch-nonce", nonce))), 204, f"the answer to host {i}")
        took.append(h.took)
        leave(h, hows[i % len(hows)])
        time.sleep(pause[i % len(pause)])
    return took


def said(took):
    print(f"# met in {sorted(took)[len(took) // 2] * 1e3:.0f} ms, at most {max(took) * 1e3:.0f} ms", flush=True)


@check("machine")
def hosts_that_follow_each_other_are_met(m):
    said(meets(m, 30, ("idle", "download", "upload"), (0, 0.01, 0.1)))


@check("machine")
def hosts_are_met_when_the_processor_is_busy(m):
    busy(m, 3, 25)
    said(meets(m, 12, ("idle", "download", "upload"), (0, 0.1, 1)))
