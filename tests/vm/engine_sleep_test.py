#!/usr/bin/env python3
"""engine_sleep_test.py - sleep, wake, snapshot, fork, rollback of real virtual machines.

usage: engine_sleep_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary of a DEV build)

Acceptance rows of spec 02 §9, the agent's part: 12, 17, 18 (on the same host), 19, 20, 21 (5 children of 16 MiB),
22, 38.
"""
import glob, hashlib, os, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_lib import Agent, main, new_id, wait_for

agent = Agent(sys.argv[1], sys.argv[2], 65100)
CLOCK = 'date +%s.%N'
COUNT = '''import os, time
n = 0
while True:
    n += 1
    with open('/dev/shm/n.new', 'w') as f:
        f.write(str(n))
    os.replace('/dev/shm/n.new', '/dev/shm/n')
    time.sleep(0.3)'''


def make(**more):
    cid = new_id()
    status, got = agent.put(cid, **more)
    assert status == 200, (status, got)
    return cid


def image_ready():
    return any(p['image'] == 'ready' for p in agent.pools().values())


def mark(cid):
    """Something in memory, something on disk, a process that lives; returns what must be so afterwards."""
    agent.run(cid, 'head -c 3000000 /dev/urandom >/dev/shm/m; head -c 2000000 /dev/urandom >/root/d; '
                   'cat >/dev/shm/count <<"E"\n%s\nE\n'
                   'setsid python3 /dev/shm/count >/dev/null 2>&1 </dev/null & echo $! >/dev/shm/pid; until test -s /dev/shm/n; do sleep 0.1; done' % COUNT)
    return look(cid)


def look(cid):
    return agent.run(cid, 'sha256sum </dev/shm/m; sha256sum </root/d; cat /dev/shm/pid; kill -0 $(cat /dev/shm/pid) '
                          '&& echo alive; cat /proc/sys/kernel/random/boot_id /etc/machine-id; hostname')


def same(now, was):
    assert now == was, 'it was %r, it is %r' % (was, now)


def counts(cid):
    n = wait_for('the counter', lambda: agent.run(cid, 'cat /dev/shm/n').strip())
    wait_for('the next count', lambda: int(agent.run(cid, 'cat /dev/shm/n').strip() or 0) > int(n))


def clock_right(cid):
    before = time.time()
    got = float(agent.run(cid, CLOCK))
    assert before - 2 < got < time.time() + 2, got - before


# ---- the tests ----

def test_image_holds_all_of_it_after_a_save():
    """What of a template's memory is zero costs nothing, until QEMU reads it for a save: it is told as it is."""
    cid = make()
    wait_for('the image', image_ready)
    agent.restart()         # loaded anew, and nobody of it was saved
    wait_for('the image', image_ready)
    pool = lambda: next(p for p in agent.pools().values() if p['image'] == 'ready')    # noqa: E731
    child = make()
    fresh = pool()['image_mb']
    assert 20 < fresh < agent.memory, fresh
    assert agent.get(child)['start_mode'] == 'warm', agent.get(child)
    assert agent.post(child, 'hibernate')[0] == 200
    print('# a memory image of %d MiB holds %d before, %d after the first save of a clone' % (agent.memory, fresh, pool()['image_mb']))
    assert fresh < pool()['image_mb'] <= agent.memory, pool()
    for each in cid, child:
        assert agent.delete(each)[0] == 204


def test_pause_and_resume_in_ram():
    cid = make()
    was = mark(cid)
    pids = agent.qemus()
    status, got = agent.post(cid, 'pause', body={'by': 'idle'})
    assert status == 200 and got['state'] == 'paused' and got['residency'] == 'ram', (status, got)
    print('# pause: %d ms' % got['took_ms'])
    assert agent.post(cid, 'pause')[0] == 200    # again: nothing happens
    assert agent.get(cid)['paused_by'] == 'idle'
    status, got = agent.put(cid)     # its start, asked for again as the first answer was lost: it ran, and stays as it is
    assert status == 200 and got['state'] == 'paused' and got['epoch'] == 1, (status, got)
    status, got = agent.call('GET', '/capsules/%s/guest/health' % cid)
    assert status == 409, (status, got)
    time.sleep(1.5)
    status, got = agent.post(cid, 'resume', 2)
    assert status == 200 and got['state'] == 'running' and got['epoch'] == 2, (status, got)
    print('# resume in RAM: %d ms' % got['took_ms'])
    same(look(cid), was)
    assert agent.run(cid, 'echo $GREETING') == 'hello\n'
    counts(cid)
    clock_right(cid)
    assert set(agent.qemus()) & set(pids), (agent.qemus(), pids)
    assert agent.post(cid, 'pause', 1)[0] == 409     # an old epoch
    assert agent.post(cid, 'resume', 2)[0] == 200    # is so already
    assert agent.delete(cid)[0] == 204


def test_paused_goes_to_disk_and_comes_back():
    cid = make()
    was = mark(cid)
    agent.restart(pause_persist_sec=0, pause_keep_ram_sec=2)
    assert agent.post(cid, 'pause')[0] == 200
    wait_for('its image', lambda: glob.glob(agent.state + '/vm/*/state'))
    wait_for('the end of its process', lambda: agent.get(cid)['residency'] == 'disk')
    wait_for('no process', lambda: not agent.qemus())
    agent.restart()
    assert agent.get(cid)['state'] == 'paused' and agent.get(cid)['residency'] == 'disk', agent.get(cid)
    status, got = agent.post(cid, 'resume', 2)
    assert status == 200 and got['start_mode'] == 'restored', (status, got)
    print('# resume from disk: %d ms' % got['took_ms'])
    same(look(cid), was)
    counts(cid)
    clock_right(cid)
    assert not glob.glob(agent.state + '/vm/*/state')
    assert agent.delete(cid)[0] == 204


def test_hibernate_and_resume():
    wait_for('an image', image_ready)
    cid = make()
    was = mark(cid)
    status, h = agent.post(cid, 'hibernate', body={'by': 'user'})
    assert status == 200 and h['state'] == 'hibernated' and h['memory'] and h['disk'], (status, h)
    print('# hibernate: %d ms, %d KiB' % (h['took_ms'], h['bytes'] >> 10))
    wait_for('nothing', lambda: not agent.qemus() and not os.listdir(agent.state + '/vm'))
    m = agent.manifest(h['memory'])
    assert m['kind'] == 'memory' and m['parent'] and m['qemu'] and m['machine'] and m['memory_mb'] == 256, m
    assert agent.manifest(m['parent'])['kind'] == 'image'
    assert m['files'][0]['size'] < 64 << 20, m['files'][0]['size']
    agent.restart()
    told = agent.get(cid)  # as its inventory and its reports say it
    assert h['bytes'] > 0 and all(told[name] == h[name] for name in ('state', 'memory', 'disk', 'bytes')), (told, h)
    status, got = agent.put(cid, 2, image={'memory': h['memory'], 'disk': h['disk']}, new_identity=False)
    assert status == 200 and got['start_mode'] == 'restored', (status, got)
    print('# resume of a hibernated one: %d ms' % got['took_ms'])
    same(look(cid), was)
    counts(cid)
    clock_right(cid)
    # and cold, from the disk alone
    disk = agent.run(cid, 'sync; sha256sum </root/d')
    status, h = agent.post(cid, 'hibernate', 2, {'memory': False})
    assert status == 200 and h['memory'] is None and h['disk'], (status, h)
    status, got = agent.put(cid, 3, image={'memory': None, 'disk': h['disk']})
    assert status == 200 and got['start_mode'] == 'cold', (status, got)
    assert agent.run(cid, 'sha256sum </root/d; test -e /dev/shm/m || echo gone') == disk + 'gone\n'
    assert agent.delete(cid)[0] == 204


def test_sleep_cycles_keep_memory_and_template():
    """Row 19: pages zeroed and rewritten, cycles, a sibling that frees memory; the shared image stays."""
    wait_for('an image', image_ready)
    a, b = make(), make()
    image = image_hash()
    agent.run(a, 'head -c 8000000 /dev/urandom >/dev/shm/m')
    sums = agent.run(a, 'sha256sum </dev/shm/m')
    for epoch in (1, 2, 3):
        if epoch == 2:     # what was there is zero now, and other pages are not
            agent.run(a, 'dd if=/dev/zero of=/dev/shm/m bs=1M count=4 conv=notrunc 2>/dev/null; sync; '
                         'echo 3 >/proc/sys/vm/drop_caches; head -c 3000000 /dev/urandom >/dev/shm/o; rm /dev/shm/o')
            sums = agent.run(a, 'sha256sum </dev/shm/m')
        agent.run(b, 'head -c 60000000 /dev/urandom >/dev/shm/x; rm /dev/shm/x; echo 3 >/proc/sys/vm/drop_caches')
        status, h = agent.post(a, 'hibernate', epoch)
        assert status == 200, (status, h)
        status, got = agent.put(a, epoch + 1, image={'memory': h['memory'], 'disk': h['disk']})
        assert status == 200, (status, got)
        assert agent.run(a, 'sha256sum </dev/shm/m') == sums, 'memory after cycle %d' % epoch
    assert image_hash() == image
    assert agent.delete(a)[0] == 204 and agent.delete(b)[0] == 204


def held_mb(name):
    """What the agent's memory file of that name holds."""
    return max(os.stat(fd).st_blocks * 512 >> 20 for fd in glob.glob('/proc/%d/fd/*' % agent.process.pid)
               if os.path.lexists(fd) and name in os.readlink(fd))


def image_hash(name='memfd:hutch-image'):
    """Of the sealed memory files that the agent holds; that they are sealed is looked at, too."""
    import fcntl
    sums = []
    for fd in glob.glob('/proc/%d/fd/*' % agent.process.pid):
        try:
            if name not in os.readlink(fd):
                continue
        except OSError:     # another one, closed meanwhile
            continue
        with open(fd, 'rb') as f:
            assert fcntl.fcntl(f, 1034) & 0xf == 0xf, 'not sealed'     # F_GET_SEALS
            sums.append(hashlib.sha256(f.read()).hexdigest())
    assert sums
    return sorted(sums)


def test_no_balloon_in_clones():
    wait_for('an image', image_ready)
    cid = make()
    with open('/proc/%d/cmdline' % agent.vm_of(cid), 'rb') as f:
        words = f.read()
    assert b'balloon' not in words and b'share=off' in words and b'/proc/self/fd/' in words
    assert agent.delete(cid)[0] == 204


def test_snapshot_while_it_runs():
    cid = make()
    was = mark(cid)
    status, s = agent.post(cid, 'snapshot', body={'snapshot': 'snp-a', 'memory': True}, op='s1')
    assert status == 200 and s['memory'] and s['disk'], (status, s)
    print('# snapshot: %d ms, stood still for %d ms, %d KiB' % (s['took_ms'], s['down_ms'], s['bytes_unique'] >> 10))
    assert agent.post(cid, 'snapshot', body={'memory': True}, op='s1')[1]['memory'] == s['memory']
    same(look(cid), was)
    counts(cid)
    agent.run(cid, 'rm /dev/shm/m /root/d; echo later >/root/later; sync')
    # another capsule from it
    other = new_id()
    status, got = agent.put(other, image={'memory': s['memory'], 'disk': s['disk']}, new_identity=True, hostname='other')
    assert status == 200 and got['start_mode'] == 'restored', (status, got)
    a, b = was.split('\n'), look(other).split('\n')
    assert a[:4] == b[:4], (a, b)                    # memory, disk, process
    assert a[4] != b[4] and a[5] != b[5] and b[6] == 'other', (a, b)
    counts(other)
    # disk alone
    status, d = agent.post(cid, 'snapshot', body={'memory': False}, op='s2')
    assert status == 200 and d['memory'] is None, (status, d)
    status, got = agent.put(new := new_id(), image={'memory': None, 'disk': d['disk']}, new_identity=True)
    assert status == 200 and agent.run(new, 'cat /root/later; ls /root/d 2>&1 | wc -l') == 'later\n1\n'
    for c in (cid, other, new):
        assert agent.delete(c)[0] == 204


def test_rollback():
    cid = make()
    was = mark(cid)
    s = agent.post(cid, 'snapshot', body={'memory': True}, op='r')[1]
    agent.run(cid, 'rm /root/d; echo gone >/dev/shm/m')
    slow = {}
    def stream():
        try:
            slow['out'] = agent.run(cid, 'touch /dev/shm/began; sleep 100')
        except (AssertionError, OSError) as e:
            slow['end'] = e
    t = threading.Thread(target=stream)
    t.start()
    wait_for('the stream', lambda: agent.run(cid, 'test -e /dev/shm/began && echo yes'))
    status, got = agent.post(cid, 'rollback', 2, dict(agent.spec(2), memory=s['memory'], disk=s['disk']))
    assert status == 200 and got['epoch'] == 2 and got['state'] == 'running', (status, got)
    print('# rollback: %d ms' % got['took_ms'])
    t.join(60)
    assert 'end' in slow, slow          # its stream was closed, long before its command would have ended
    same(look(cid), was)
    counts(cid)
    wait_for('one process', lambda: len(agent.qemus()) == 1)
    # a bad one leaves it as it is
    status, got = agent.post(cid, 'rollback', 3, dict(agent.spec(3), memory='0' * 64, disk='0' * 64))
    assert status == 404, (status, got)
    assert agent.get(cid)['state'] == 'running' and agent.get(cid)['epoch'] == 2
    same(look(cid), was)
    assert agent.delete(cid)[0] == 204


def test_fork():
    """Row 21, scaled: five children; what must differ differs, what must not does not."""
    wait_for('an image', image_ready)     # and no machine in which it is made
    cid = make()
    agent.run(cid, 'head -c 12000000 /dev/urandom >/dev/shm/m')
    was = mark(cid)
    children = [dict(agent.spec(1), id=new_id(), hostname='child%d' % n, access_token='token-%d' % n)
                for n in range(5)]
    status, got = agent.post(cid, 'fork', body={'memory': True, 'children': children}, op='f')
    assert status == 200 and len(got['children']) == 5, (status, got)
    assert all(c.get('state') == 'running' for c in got['children']), got
    print('# fork of 5: parent stood still for %d ms, children in %s ms' %
          (agent_down(cid), [c['took_ms'] for c in got['children']]))
    # what the parent changed is once in RAM: each maps it privately, nobody can write it
    shared = [vm for vm, pid in agent.qemus().items() if 'memfd:hutch-fork ' in open('/proc/%d/maps' % pid).read()]
    assert len(shared) == 5, (shared, agent.qemus())
    held = held_mb('memfd:hutch-fork')
    print('# they share %d MiB of %d' % (held, agent.memory))
    assert held < agent.memory * 0.8, held     # zeros are left out, also where the template's memory has no holes any more
    assert image_hash('memfd:hutch-fork')
    command = ('head -c 16 /dev/urandom | od -An -tx1; cat /proc/sys/kernel/random/uuid /etc/machine-id '
               '/proc/sys/kernel/random/boot_id; hostname')
    seen = [agent.run(cid, command).split('\n')]
    for n, c in enumerate(children):
        seen.append(agent.run(c['id'], command, c['access_token']).split('\n'))
        try:
            agent.run(c['id'], 'true')
            raise SystemExit('the parent\'s token opens a child')
        except AssertionError:
            pass
        before = time.time()
        out = agent.run(c['id'], 'sha256sum </dev/shm/m; date +%s.%N', c['access_token']).split('\n')
        assert out[0] == was.split('\n')[0], 'memory of child %d' % n
        assert before - 2 < float(out[1]) < time.time() + 2, float(out[1]) - before
    for i in range(5):
        column = [s[i] for s in seen]
        assert len(set(column)) == len(column), column
    same(look(cid), was)
    counts(cid)
    # the same call again joins
    status, again = agent.post(cid, 'fork', body={'memory': True, 'children': children}, op='f')
    assert status == 200 and [c['id'] for c in again['children']] == [c['id'] for c in children]
    wait_for('six machines', lambda: len(agent.qemus()) == 6)
    # a child's memory is a difference to the template's image, as everybody's
    c, token = children[0]['id'], children[0]['access_token']
    status, h = agent.post(c, 'hibernate')
    assert status == 200 and agent.manifest(agent.manifest(h['memory'])['parent'])['kind'] == 'image', (status, h)
    status, got = agent.put(c, 2, image={'memory': h['memory'], 'disk': h['disk']}, access_token=token)
    assert status == 200, (status, got)
    assert agent.run(c, 'sha256sum </dev/shm/m', token).split('\n')[0] == was.split('\n')[0]
    for c in [cid] + [c['id'] for c in children]:
        assert agent.delete(c)[0] == 204


CONNECTED = """import os, socket, time
def pair(address, source):
    l = socket.create_server((address, 0))
    c = socket.create_connection(l.getsockname(), 5, (source, 0))
    return c, l.accept()[0]
far, near = pair('10.9.9.9', '10.0.2.15'), pair('127.0.0.1', '127.0.0.1')
def works(c, s):
    try:
        c.sendall(b'x')
        return 'alive' if s.recv(1) == b'x' else 'end'
    except OSError as e:
        return e.strerror
while True:
    with open('/dev/shm/connected.new', 'w') as f:
        f.write(works(*far) + ', ' + works(*near))
    os.replace('/dev/shm/connected.new', '/dev/shm/connected')
    time.sleep(0.2)
"""


def test_fork_resets_connections():
    """What goes outside is the parent's: in a child it is reset, as an address that is not this machine's; the rest stays."""
    cid, child = make(), dict(agent.spec(1), id=new_id())
    agent.run(cid, 'ip addr add 10.9.9.9/32 dev lo; cat >/dev/shm/connected.py <<"E"\n%s\nE\n'
                   'setsid python3 /dev/shm/connected.py >/dev/null 2>&1 </dev/null &' % CONNECTED)
    look_at = lambda c: agent.run(c, 'cat /dev/shm/connected')

    def look_anew(c):
        agent.run(c, 'rm -f /dev/shm/connected')
        return wait_for('what it says now', lambda: agent.run(c, 'cat /dev/shm/connected 2>/dev/null; true'))
    wait_for('the connections', lambda: look_anew(cid) == 'alive, alive')
    assert agent.post(cid, 'pause')[0] == 200 and agent.post(cid, 'resume', 2)[0] == 200
    assert look_anew(cid) == 'alive, alive'
    status, got = agent.post(cid, 'fork', 2, body={'memory': True, 'children': [child]}, op='reset')
    assert status == 200 and 'error' not in got['children'][0], (status, got)
    wait_for('the reset', lambda: look_at(child['id']) == 'Connection reset by peer, alive' or
             look_at(child['id']) == 'Broken pipe, alive')
    assert look_anew(cid) == 'alive, alive'
    assert agent.delete(cid)[0] == 204 and agent.delete(child['id'])[0] == 204


def agent_down(cid):
    lines = [l for l in agent.log().split('\n') if cid in l and 'stood still' in l]
    return int(lines[-1].split('stood still for ')[1].split(' ')[0])


def test_corrupt_is_refused():
    cid = make()
    h = agent.post(cid, 'hibernate')[1]
    path = '%s/artifacts/%s/state' % (agent.state, h['memory'])
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.seek(5000)
        byte = f.read(1)
        f.seek(5000)
        f.write(bytes([byte[0] ^ 1]))
    agent.restart()
    status, got = agent.put(cid, 2, image={'memory': h['memory'], 'disk': h['disk']})
    assert status >= 400 and got['error']['code'] == 'tampered', (status, got)
    assert h['memory'][:16] in got['error']['message'], got
    status, got = agent.put(cid, 2, image={'memory': None, 'disk': h['disk']})
    assert status == 200 and got['start_mode'] == 'cold', (status, got)
    assert agent.delete(cid)[0] == 204


def test_full_disk_leaves_it_running():
    cid = make()
    was = mark(cid)
    agent.restart(min_free_disk_gb=100000)
    status, got = agent.post(cid, 'hibernate')
    assert status == 507, (status, got)
    status, got = agent.post(cid, 'snapshot', op='full')
    assert status == 507, (status, got)
    assert agent.get(cid)['state'] == 'running' and look(cid) == was
    counts(cid)
    agent.restart()
    assert agent.delete(cid)[0] == 204


def test_poweroff_and_reboot():
    cid = make()
    agent.run(cid, 'echo kept >/root/k; sync')
    try:
        agent.run(cid, 'reboot; sleep 5')
    except (AssertionError, OSError):
        pass
    wait_for('the new boot', lambda: agent.get(cid).get('reboots') == 1 and agent.get(cid)['state'] == 'running')
    assert agent.get(cid)['start_mode'] == 'cold', agent.get(cid)
    assert agent.run(cid, 'cat /root/k; echo $GREETING') == 'kept\nhello\n'
    try:
        agent.run(cid, 'poweroff; sleep 5')
    except (AssertionError, OSError):
        pass
    wait_for('its sleep', lambda: agent.get(cid)['state'] == 'hibernated')
    got = agent.get(cid)
    assert got['memory'] is None and got['disk'] and got['paused_by'] == 'poweroff', got
    status, got = agent.put(cid, 2, image={'memory': None, 'disk': got['disk']})
    assert status == 200 and agent.run(cid, 'cat /root/k') == 'kept\n', got
    assert agent.delete(cid)[0] == 204


def test_long_chains_are_flattened():
    cid = make()
    agent.run(cid, 'head -c 3000000 /dev/urandom >/root/big; md5sum /root/big >/root/sum; sync')
    n = -1
    while '%s: its disk is flat again' % cid not in agent.log():
        n += 1
        assert n < 20, n
        agent.run(cid, 'echo %d >/root/n%d; sync' % (n, n))
        status, got = agent.post(cid, 'snapshot', body={'memory': False}, op='c%d' % n)
        assert status == 200, (n, status, got)
        if n > 5:
            time.sleep(1)   # the next snapshot would end the flattening; the last one is to be the disk that is sealed
    assert agent.run(cid, 'cat /root/n0 /root/n%d' % n) == '0\n%d\n' % n
    status, h = agent.post(cid, 'hibernate')
    assert status == 200, (status, h)
    status, got = agent.put(cid, 2, image={'memory': h['memory'], 'disk': h['disk']})
    assert status == 200 and agent.run(cid, 'cat /root/n0 /root/n%d' % n) == '0\n%d\n' % n, (status, got)
    # read from the disk, not from memory
    assert agent.run(cid, 'echo 3 >/proc/sys/vm/drop_caches; md5sum -c /root/sum') == '/root/big: OK\n'
    disk = '%s/artifacts/%s/disk.qcow2' % (agent.state, h['disk'])
    said = subprocess.run(['qemu-img', 'check', '-f', 'qcow2', disk], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert said.returncode == 0, said.stdout
    assert agent.delete(cid)[0] == 204


def test_discard_is_kept_a_day():
    cid = make()
    assert agent.post(cid, 'discard', 1)[0] == 204
    assert cid not in agent.inventory()
    wait_for('no machine', lambda: not agent.qemus())
    kept = os.listdir(agent.state + '/quarantine')
    assert len(kept) == 1 and kept[0].startswith(cid), kept
    assert os.path.exists('%s/quarantine/%s/disk.qcow2' % (agent.state, kept[0]))


def test_crash_points_of_sleep():
    """Row 3, the agent's part: killed at every step; after it a legal state, no byte lost, nothing left over."""
    for what in ('pause', 'resume', 'hibernate'):
        for n in (3, 4, 5):
            crash_one(what, n)


def test_crash_points_of_copies():
    for what in ('snapshot', 'rollback', 'fork'):
        for n in (3, 4, 5):
            crash_one(what, n)


def test_killed_twice():
    """At the same step, twice in a row: what the first left must not be in the way of the second, nor of the third."""
    for what, n in (('snapshot', 3), ('snapshot', 4), ('fork', 4), ('pause', 4)):
        crash_one(what, n, 2)


def test_paused_snapshot_killed():
    """The image and the disk are artifacts' files already: what is made of them goes, the capsule keeps them."""
    agent.restart(pause_persist_sec=0)
    cid = make()
    agent.run(cid, 'head -c 300000 /dev/urandom >/dev/shm/m; head -c 300000 /dev/urandom >/root/d; sync')
    was = agent.run(cid, 'sha256sum </dev/shm/m; sha256sum </root/d')
    assert agent.post(cid, 'pause')[0] == 200
    for _ in range(2):
        agent.restart(env={'HUTCH_CRASH_AT': 'snapshot.4'})
        crash(lambda: agent.post(cid, 'snapshot', op='p'))
    agent.start()
    status, s = agent.post(cid, 'snapshot', op='p')
    assert status == 200, (status, s)
    status, got = agent.post(cid, 'resume', 2)
    assert status == 200, (status, got)
    assert agent.run(cid, 'sha256sum </dev/shm/m; sha256sum </root/d') == was
    status, got = agent.put(other := new_id(), image={'memory': s['memory'], 'disk': s['disk']}, new_identity=True)
    assert status == 200 and agent.run(other, 'sha256sum </dev/shm/m; sha256sum </root/d') == was, (status, got)
    assert agent.delete(cid)[0] == 204 and agent.delete(other)[0] == 204


def crash(call):
    try:
        call()
        raise SystemExit('no crash')
    except OSError:
        agent.process.wait(60)


def crash_one(what, n, times=1):
    at = time.time()
    cid, child, epoch = make(), None, 1
    wait_for('an image', image_ready)     # and nothing else that runs
    agent.run(cid, 'head -c 300000 /dev/urandom >/dev/shm/m; head -c 300000 /dev/urandom >/root/d; sync')
    was = agent.run(cid, 'sha256sum </dev/shm/m; sha256sum </root/d')
    body = {}
    if what == 'resume':
        assert agent.post(cid, 'pause')[0] == 200
        epoch = 2
    if what == 'rollback':
        s = agent.post(cid, 'snapshot', op='x%d' % n)[1]
        epoch, body = 2, dict(agent.spec(2), memory=s['memory'], disk=s['disk'])
    if what == 'fork':
        child = new_id()
        body = {'children': [dict(agent.spec(1), id=child)]}
    for _ in range(times):
        agent.restart(env={'HUTCH_CRASH_AT': '%s.%d' % (what, n)})
        crash(lambda: agent.post(cid, what, epoch, body, op='crash'))
    agent.start()
    here = agent.inventory().get(cid)
    # the control plane asks again, as its job says
    if here['state'] == 'error' and what == 'rollback':
        status, got = agent.post(cid, what, epoch, body, op='crash')
    else:
        status, got = agent.post(cid, what, max(epoch, here['epoch']), body, op='crash')
    assert status == 200, (what, n, here, status, got)
    here = agent.get(cid)
    if here['state'] == 'paused':
        assert agent.post(cid, 'resume', 3)[0] == 200
    if here['state'] == 'hibernated':
        status, got = agent.put(cid, 3, image={'memory': here['memory'], 'disk': here['disk']})
        assert status == 200, (what, n, got)
    assert agent.run(cid, 'sha256sum </dev/shm/m; sha256sum </root/d') == was, (what, n)
    if child:
        assert agent.run(child, 'sha256sum </dev/shm/m; sha256sum </root/d') == was, (what, n)
        assert agent.delete(child)[0] == 204
    assert agent.delete(cid)[0] == 204
    wait_for('nothing of %s.%d' % (what, n), lambda: not agent.qemus() and not os.listdir(agent.state + '/vm') and
             not glob.glob(agent.state + '/artifacts/*.tmp'))
    print('# %s.%d, %d times: %.0f s' % (what, n, times, time.time() - at), flush=True)


sys.exit(main(agent, globals(), 'sleep'))
