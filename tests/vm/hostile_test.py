#!/usr/bin/env python3
"""hostile_test.py - a guest that has turned against its host harms only itself.

usage: hostile_test.py AGENT IMAGE_DIR [NAME...]     (a hutch-agent binary, images/build's output)

Two real machines. The control socket of one is taken over: a program stands where QEMU's end was and, once told,
says to the agent what a guest's root could make its end of the virtio-serial port say (the agent cannot tell them
apart: bytes of one socket). The neighbour's commands are timed while the attack goes on, the agent's memory is
measured before and after each.
"""
import json
import os
import random
import socket
import struct
import subprocess
import sys
import threading
import time

import engine_lib
from h2_client import DATA, GOAWAY, HEADERS, PING, RST, SETTINGS, WINDOW, frame, literal, number

GROWTH_MB, RUN_S = 48, 3
agent = engine_lib.Agent(sys.argv[1], sys.argv[2], 47000, pool_size=0)
SANITIZER = {'ASAN_OPTIONS': 'quarantine_size_mb=1:malloc_context_size=2:detect_leaks=0'}
OK = literal(':status', '200')


class Port:
    """Stands between agent and guest; a session that begins while attack is set is the attack's."""

    def __init__(self, path):
        self.real, self.attack = path + '.real', None
        os.rename(path, self.real)
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        os.chmod(path, 0o777)
        self.listener.listen(8)
        self.sessions, self.near = 0, []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                near = self.listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self.session, args=(near,), daemon=True).start()

    def session(self, near):
        self.sessions += 1
        self.near.append(near)
        far = None
        try:
            if self.attack:
                self.attack(near)
                return
            far = socket.socket(socket.AF_UNIX)
            far.connect(self.real)
            threading.Thread(target=self.carry, args=(far, near), daemon=True).start()
            self.carry(near, far)
        except OSError:
            pass
        finally:
            near.close()
            if far:
                far.close()

    def begin(self, attack):
        """The session that is there ends; the next one meets the attack."""
        self.attack, old, self.near = attack, self.near, []
        for s in old:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def carry(self, a, b):
        try:
            while not self.attack and (data := a.recv(65536)):
                b.sendall(data)
        except OSError:
            pass
        for s in a, b:
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


# ---- the attacks: each gets the agent's connection


def opened(near):
    """The streams that the agent opens, as they come; SETTINGS first."""
    near.sendall(frame(SETTINGS, 0, 0, struct.pack('>HIHI', 3, 1000000, 4, 1 << 30)) +
                 frame(WINDOW, 0, 0, struct.pack('>I', (1 << 30) - 1)))
    near.settimeout(10)
    got, skip = b'', 24
    while data := near.recv(65536):
        got += data
        if skip and len(got) >= skip:
            got, skip = got[skip:], 0
        while not skip and len(got) >= 9 and len(got) >= 9 + int.from_bytes(got[:3], 'big'):
            n, kind, stream = int.from_bytes(got[:3], 'big'), got[3], int.from_bytes(got[5:9], 'big')
            if kind == SETTINGS and not got[4] & 1:
                near.sendall(frame(SETTINGS, 1, 0))
            if kind == HEADERS:
                yield stream
            got = got[9 + n:]


def never_reads(near):
    while True:
        time.sleep(1)
        near.send(b'')


def accepts_and_never_reads(near):
    next(opened(near))
    never_reads(near)


def floods_a_body(near):
    for stream in opened(near):
        near.sendall(frame(HEADERS, 4, stream, OK))
        while True:
            near.sendall(frame(DATA, 0, stream, b'x' * 16384))


def floods_control_frames(near):
    for stream in opened(near):
        while True:
            for junk in (frame(PING, 0, 0, b'12345678'), frame(SETTINGS, 0, 0), frame(WINDOW, 0, stream, b'\0\0\0\1'),
                         frame(0x20, 0, stream, b'unknown')):
                near.sendall(junk * 500)


def lies_about_lengths(near):
    for stream in opened(near):
        near.sendall(frame(HEADERS, 4, stream, OK + literal('content-length', '5')) +
                     random.choice((frame(DATA, 1, stream, b'much more than that'), b'\xff\xff\xff\0\0' + b'\0' * 4,
                                    frame(DATA, 8, stream, b'\xffpad'), struct.pack('>I', 16384)[1:] + b'\0\1',
                                    frame(WINDOW, 0, stream, b'\0'), frame(RST, 0, stream, b''),
                                    frame(HEADERS, 0x2c, stream, b'\xff' * 3))))
        near.sendall(b'z' * 65536)


def gives_giant_heads(near):
    for stream in opened(near):
        near.sendall(frame(HEADERS, 0, stream, OK))
        while True:
            near.sendall(frame(9, 0, stream, literal('x-%d' % random.getrandbits(60), 'v' * 8000)))


def packs_a_bomb(near):
    """A table entry of 4,000 bytes, named ten thousand times."""
    for stream in opened(near):
        entry = b'\x40' + number(0, 7, 1) + b'x' + number(0, 7, 4000) + b'b' * 4000
        near.sendall(frame(HEADERS, 0, stream, OK + entry + b'\xbe' * 10000) + frame(9, 4, stream, b'\xbe' * 10000))


def opens_streams(near):
    for stream in opened(near):
        for n in range(2, 2000000, 2):
            near.sendall(frame(HEADERS, 4, n, OK) if n % 4 else frame(5, 4, stream, struct.pack('>I', n) + OK))


def resets_at_once(near):
    for stream in opened(near):
        near.sendall(frame(RST, 0, stream, struct.pack('>I', 8)) * 50)


def never_ends(near):
    """1xx answers without end, trailers without end."""
    for stream in opened(near):
        while True:
            near.sendall(frame(HEADERS, 4, stream, literal(':status', '103') + literal('link', 'x' * 4000)) * 20)


def says_goodbye(near):
    for _ in opened(near):
        near.sendall(frame(GOAWAY, 0, 0, struct.pack('>II', 0x7fffffff, 0)) * 1000)


def talks_nonsense(near):
    while True:
        near.sendall(os.urandom(65536))


ATTACKS = (never_reads, accepts_and_never_reads, floods_a_body, floods_control_frames, lies_about_lengths,
           gives_giant_heads, packs_a_bomb, opens_streams, resets_at_once, never_ends, says_goodbye, talks_nonsense)

# ---- what is measured


def memory_mb():
    with open('/proc/%d/status' % agent.process.pid) as f:
        return next(int(line.split()[1]) for line in f if line.startswith('VmRSS')) / 1024


def callers(cid, over):
    """Keeps the hostile capsule busy: uploads, commands, tunnels' heads, downloads; answers do not matter."""
    def call(*args):
        while not over.is_set():
            subprocess.run(['curl', '-s', '-o', '/dev/null', '-m', '2', '--http2-prior-knowledge', '--unix-socket', agent.sock,
                            '-H', 'x-access-token: ' + engine_lib.TOKEN, *args,
                            'http://agent/agent/v1/capsules/%s/guest/%s' % (cid, 'files?path=/tmp/x')],
                           stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            time.sleep(0.02)
    threads = [threading.Thread(target=call, args=a) for a in
               ((), ('-X', 'POST', '-H', 'content-type: application/octet-stream', '--data-binary', '@' + agent.dir + '/big'))]
    for t in threads:
        t.start()
    return threads


def timed(cid, seconds, met=lambda: True):
    """How long each of the neighbour's commands took, in ms; until the attack was met, too."""
    times, until = [], time.time() + seconds
    while time.time() < until or not times or (not met() and time.time() < until + 60):
        begin = time.time()
        assert agent.run(cid, 'echo neighbour') == 'neighbour\n'
        times.append((time.time() - begin) * 1000)
    return times


def median(times):
    return sorted(times)[len(times) // 2]


def shown(times):
    times = sorted(times)
    return 'median %.0f ms, p99 %.0f ms, n=%d' % (times[len(times) // 2], times[min(len(times) - 1, len(times) * 99 // 100)],
                                                 len(times))


def machine(name):
    cid = engine_lib.new_id()
    status, answer = agent.put(cid, hostname=name)
    assert status == 200, answer
    return cid


def vm_of(cid):
    """The name of the capsule's machine, from the journal."""
    with open(agent.state + '/journal', errors='replace') as f:
        names = [json.loads(line[line.index('{'):]) for line in f if cid in line]
    return next(r['vm'] for r in names if r.get('vm'))


def test_hostile():
    with open(agent.dir + '/big', 'wb') as f:
        f.write(bytes(32 << 20))
    neighbour, hostile = machine('neighbour'), machine('hostile')
    port = Port('%s/vm/%s/g' % (agent.state, vm_of(hostile)))
    # a sleep ends the session: the next one goes through the port's new end
    for what in 'pause', 'resume':
        status, answer = agent.post(hostile, what)
        assert status == 200, (what, answer)
    assert agent.run(hostile, 'echo tame') == 'tame\n' and port.sessions > 0
    timed(neighbour, 1)
    quiet, first = timed(neighbour, 2 * RUN_S), memory_mb()
    print('# quiet: neighbour %s; agent %.1f MB' % (shown(quiet), first))
    everything = []
    for attack in ATTACKS:
        start, had = memory_mb(), port.sessions
        port.begin(attack)
        over = threading.Event()
        threads = callers(hostile, over)
        try:
            times = timed(neighbour, RUN_S, lambda: port.sessions > had)
        finally:
            over.set()
        everything += times
        for t in threads:
            t.join()
        end = memory_mb()
        print('# %s: neighbour %s; agent %.1f to %.1f MB; %d sessions' % (
            attack.__name__.replace('_', ' '), shown(times), start, end, port.sessions - had), flush=True)
        assert agent.process.poll() is None, 'the agent ended'
        assert end - start < GROWTH_MB, '%s: the agent grew by %.1f MB' % (attack.__name__, end - start)
        assert port.sessions > had, '%s was never met' % attack.__name__
    print('# all attacks: neighbour %s; agent %.1f to %.1f MB' % (shown(everything), first, memory_mb()))
    assert memory_mb() - first < GROWTH_MB
    # a neighbour may wait for a turn of the loop, not for the attack; quiet is before and after, as others use the machine, too
    port.begin(None)
    after = timed(neighbour, RUN_S)
    print('# quiet again: neighbour %s' % shown(after))
    assert median(everything) < 5 * max(median(quiet), median(after)) + 250, 'the neighbour is slow'
    for cid in hostile, neighbour:
        assert agent.delete(cid)[0] in (200, 204)


def test_refused():
    """A session whose guest refuses all streams, as after a wake on a busy host: nobody is told, it is asked again."""
    cid = machine('refuses')
    port = Port('%s/vm/%s/g' % (agent.state, vm_of(cid)))
    for what in 'pause', 'resume':
        assert agent.post(cid, what)[0] == 200

    def refuses(near):
        for _ in opened(near):
            port.attack = None     # the next session is the guest's own
            near.sendall(frame(GOAWAY, 0, 0, struct.pack('>II', 0, 1)))

    port.begin(refuses)
    assert agent.run(cid, 'echo again') == 'again\n'                              # a caller's
    port.begin(refuses)
    status, answer = agent.call('POST', '/capsules/%s/guest/files?path=/tmp/big' % cid, b'x' * 30000,
                                ['x-access-token: ' + engine_lib.TOKEN, 'content-type: application/octet-stream'])
    assert status == 200, answer
    assert agent.run(cid, 'wc -c </tmp/big').strip() == '30000'
    port.begin(refuses)
    status, answer = agent.post(cid, 'pause')                                      # the agent's own: freeze
    assert status == 200, answer
    port.begin(refuses)
    status, answer = agent.post(cid, 'resume')
    assert status == 200, answer
    assert agent.run(cid, 'echo awake') == 'awake\n'
    assert agent.delete(cid)[0] in (200, 204)


start = agent.start
agent.start = lambda **more: start(env=SANITIZER, **more)
sys.exit(engine_lib.main(agent, globals(), 'hostile'))
