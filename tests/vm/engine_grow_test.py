#!/usr/bin/env python3
"""engine_grow_test.py - a disk grows at once (spec 02 §2.3): below a running guest, and when a sleeping one wakes; what the journal
has of a PATCH.

usage: engine_grow_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary of a DEV build)
"""
import json, os, signal, sys, threading, time, zlib

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_lib import Agent, main, new_id, wait_for

agent = Agent(sys.argv[1], sys.argv[2], 65400)
LESS = 500      # MiB that the file system's own tables may take


def make(**more):
    cid = new_id()
    status, got = agent.put(cid, **more)
    assert status == 200, (status, got)
    return cid


def grow(cid, mb, epoch=1):
    return agent.call('PATCH', '/capsules/' + cid, {'disk_size_mb': mb}, ['hutch-epoch: %d' % epoch])


def grown(cid, mb, epoch=1):
    status, got = grow(cid, mb, epoch)
    assert status == 200 and agent.get(cid)['disk_size_mb'] == mb, (status, got)


def df(cid):
    return int(agent.run(cid, 'df -m / | tail -1').split()[1])


def has(cid, mb):
    """Its file system, and what lies on it."""
    size = df(cid)
    assert mb - LESS < size <= mb, (size, mb)
    assert agent.run(cid, 'cat /root/k') == 'kept\n'


def kept(cid):
    agent.run(cid, 'echo kept >/root/k; sync')
    return cid


def crash(cid, point, mb):
    """The agent ends at the point, while it grows the disk; a new one begins."""
    agent.restart(env={'HUTCH_CRASH_AT': point})
    try:
        grow(cid, mb)
    except OSError:
        pass
    agent.process.wait(30)
    agent.start()


def test_running():
    cid = kept(make())
    has(cid, 5120)
    grown(cid, 6144)
    has(cid, 6144)
    grown(cid, 6144)        # again: nothing happens
    assert grow(cid, 4000)[0] == 200 and agent.get(cid)['disk_size_mb'] == 6144    # it never shrinks
    for bad in (-1, 262145, 'much', 6144.5, None):
        status, got = agent.call('PATCH', '/capsules/' + cid, {'disk_size_mb': bad}, ['hutch-epoch: 1'])
        assert status == 400 or bad is None, (bad, status, got)
    status, got = agent.call('PATCH', '/capsules/%s' % cid, {'disk_size_mb': 8192}, ['hutch-epoch: 0'])
    assert status == 409 and got['error']['code'] == 'stale_epoch', (status, got)
    grown(cid, 7168)
    has(cid, 7168)
    agent.restart()
    assert agent.get(cid)['disk_size_mb'] == 7168
    has(cid, 7168)
    assert agent.delete(cid)[0] == 204


def test_reboots():
    """The guest boots the disk anew: all of it is there."""
    cid = kept(make())
    grown(cid, 6144)
    try:
        agent.run(cid, 'reboot -f')
    except (AssertionError, OSError):
        pass        # the session went with the machine
    wait_for('the reboot', lambda: agent.get(cid).get('reboots') == 1 and agent.get(cid)['state'] == 'running')
    has(cid, 6144)
    assert agent.delete(cid)[0] == 204


def test_guests_may_not_ask():
    cid = make()
    status, got = agent.call('POST', '/capsules/%s/guest/grow' % cid, {'bytes': 1 << 33}, ['x-access-token: ' + 'token-of-the-test'])
    assert status == 404, (status, got)
    assert agent.delete(cid)[0] == 204


def test_paused():
    cid = kept(make())
    assert agent.post(cid, 'pause')[0] == 200
    grown(cid, 6144)
    agent.restart()         # the promise is kept by the next agent
    assert agent.get(cid)['disk_size_mb'] == 6144 and agent.get(cid)['state'] == 'paused'
    assert agent.post(cid, 'resume', 2)[0] == 200
    has(cid, 6144)
    # from disk, and with the size in the resume's own body
    assert agent.post(cid, 'pause', 2)[0] == 200
    agent.restart(pause_persist_sec=0, pause_keep_ram_sec=1)
    wait_for('the end of its process', lambda: agent.get(cid)['residency'] == 'disk' and not agent.qemus())
    grown(cid, 7168, 2)
    status, got = agent.post(cid, 'resume', 3)
    assert status == 200 and got['start_mode'] == 'restored', (status, got)
    has(cid, 7168)
    assert agent.post(cid, 'pause', 3)[0] == 200
    assert agent.post(cid, 'resume', 4, {'disk_size_mb': 8192})[0] == 200
    has(cid, 8192)
    agent.restart()
    assert agent.delete(cid)[0] == 204


def test_snapshots_of_a_paused_one():
    """A promise that the disk does not keep yet: the snapshot says what the disk has, the next file has it, too."""
    cid = kept(make())
    assert agent.post(cid, 'pause')[0] == 200
    grown(cid, 6144)
    status, s = agent.post(cid, 'snapshot', op='s')
    assert status == 200 and agent.manifest(s['disk'])['disk_size'] == 5120 << 20, (s, agent.manifest(s['disk']))
    assert agent.post(cid, 'resume', 2)[0] == 200
    has(cid, 6144)
    status, s = agent.post(cid, 'snapshot', 2, op='t')
    assert status == 200 and agent.manifest(s['disk'])['disk_size'] == 6144 << 20, (s, agent.manifest(s['disk']))
    assert agent.delete(cid)[0] == 204


def test_hibernated_and_forked():
    cid, child = kept(make()), new_id()
    grown(cid, 6144)
    status, got = agent.post(cid, 'fork', body={'memory': True, 'children': [
        {'id': child, 'epoch': 1, 'access_token': 'token-of-the-test', 'disk_size_mb': 7168}]}, op='f')
    assert status == 200 and 'error' not in got['children'][0], (status, got)
    has(child, 7168)
    has(cid, 6144)
    assert agent.delete(child)[0] == 204
    h = agent.post(cid, 'hibernate')[1]
    status, got = agent.put(cid, 2, disk_size_mb=8192, image={'memory': h['memory'], 'disk': h['disk']})
    assert status == 200 and got['start_mode'] == 'restored', (status, got)
    has(cid, 8192)
    grown(cid, 9216, 2)
    has(cid, 9216)
    assert agent.delete(cid)[0] == 204


def test_rollback():
    """To a smaller disk: the capsule has what it was given since."""
    cid = kept(make())
    for memory in True, False:
        status, s = agent.post(cid, 'snapshot', agent.get(cid)['epoch'], {'memory': memory}, op='r%d' % memory)
        assert status == 200, (status, s)
        epoch = agent.get(cid)['epoch']
        size = agent.get(cid)['disk_size_mb'] + 1024
        grown(cid, size, epoch)
        has(cid, size)
        body = agent.spec(epoch + 1, memory_mb=agent.memory, memory=s['memory'], disk=s['disk'], disk_size_mb=size)
        status, got = agent.post(cid, 'rollback', epoch + 1, body, op='b%d' % memory)
        assert status == 200 and got['epoch'] == epoch + 1, (status, got)
        has(cid, size)
        assert agent.get(cid)['disk_size_mb'] == size
    assert agent.delete(cid)[0] == 204


def test_killed_while_it_grows():
    cid, size = kept(make()), 5120
    for point in 'grow.3', 'grow.4':
        size += 1024
        crash(cid, point, size)
        assert agent.get(cid)['state'] == 'running' and agent.get(cid)['disk_size_mb'] == size
        wait_for('the disk, by the next agent', lambda: df(cid) > size - LESS)
        has(cid, size)
    # asked again, as who asked does: it waits for the end
    size += 1024
    crash(cid, 'grow.3', size)
    grown(cid, size)
    has(cid, size)
    assert agent.delete(cid)[0] == 204


def test_sleeps_while_it_grows():
    """Whoever comes meanwhile waits; nobody is refused."""
    cid = kept(make())
    said = []
    threads = [threading.Thread(target=lambda mb=mb: said.append(grow(cid, mb))) for mb in (6144, 7168)]
    for t in threads:
        t.start()
    status, got = agent.post(cid, 'pause')
    assert status == 200, (status, got)
    for t in threads:
        t.join()
    assert [s for s, _ in said] == [200, 200], said
    assert agent.post(cid, 'resume', 2)[0] == 200
    has(cid, 7168)
    assert agent.delete(cid)[0] == 204


def test_after_the_end():
    """Of one that ended, the next cold boot has it."""
    cid = kept(make())
    os.kill(list(agent.qemus().values())[0] if len(agent.qemus()) == 1 else agent.vm_of(cid), signal.SIGKILL)
    wait_for('the error', lambda: agent.get(cid)['state'] == 'error')
    grown(cid, 6144)
    status, got = agent.post(cid, 'resume', 2, agent.spec(2, boot='cold'))
    assert status == 200, (status, got)
    has(cid, 6144)
    assert agent.delete(cid)[0] == 204


def test_no_room():
    """507, and nothing has changed."""
    cid = kept(make())
    agent.restart(min_free_disk_gb=100000)
    status, got = agent.call('PATCH', '/capsules/' + cid, {'disk_size_mb': 6144, 'network': {'internet': False}}, ['hutch-epoch: 1'])
    assert status == 507, (status, got)
    assert agent.get(cid)['disk_size_mb'] == 5120
    has(cid, 5120)
    agent.restart()
    assert agent.get(cid)['disk_size_mb'] == 5120
    grown(cid, 6144)
    has(cid, 6144)
    assert agent.delete(cid)[0] == 204


def test_large():
    cid = kept(make())
    grown(cid, 65536)
    size = df(cid)
    assert 65536 * 0.95 < size <= 65536, size
    assert agent.delete(cid)[0] == 204


# ---- the journal ----

def records(cid):
    with open(agent.state + '/journal', errors='replace') as f:
        return [json.loads(line[9:]) for line in f if line.endswith('\n') and cid in line]


def patch(cid, epoch=1, **body):
    status, got = agent.call('PATCH', '/capsules/' + cid, body, ['hutch-epoch: %d' % epoch])
    assert status in (200, 409), (status, got)
    return status


def test_a_patch_names_no_state():
    """It may come between a record that is on disk and the state that follows it: of an agent that is killed then, the next one must
    not read the older word behind the newer."""
    cid, over = make(), threading.Event()
    assert patch(cid, timeout_sec=500) == 200 and records(cid)[-1]['op'] == 'set', records(cid)[-1]

    def patches(n):
        while not over.is_set():
            n += 1
            patch(cid, 99, timeout_sec=n, disk_size_mb=5120)
    threads = [threading.Thread(target=patches, args=(n,)) for n in (1000, 2000)]
    for t in threads:
        t.start()
    for epoch in 1, 2, 3:
        assert agent.post(cid, 'pause', epoch)[0] == 200
        assert agent.post(cid, 'resume', epoch + 1)[0] == 200
    assert agent.post(cid, 'pause', 4)[0] == 200
    over.set()
    for t in threads:
        t.join()
    assert patch(cid, 4, timeout_sec=501, disk_size_mb=6144) == 200
    words = [r['op'] for r in records(cid) if r['op'] not in ('set', 'want', 'vm')]
    for a, b in zip(words, words[1:]):      # each is what the one before leads to
        assert b in {'pause': ('paused',), 'paused': ('paused', 'resume'), 'resume': ('live',), 'live': ('up',), 'up': ('pause',)}[a], words
    agent.restart()
    now = agent.get(cid)
    assert (now['state'], now['timeout_sec'], now['disk_size_mb']) == ('paused', 501, 6144), now
    assert agent.post(cid, 'resume', 5)[0] == 200
    assert agent.delete(cid)[0] == 204


def test_a_large_journal_is_rewritten():
    """From what it said, records of a PATCH too: at the agent's start, and while it runs."""
    paused, running = make(), make()
    assert agent.post(paused, 'pause')[0] == 200
    agent.stop(signal.SIGKILL)
    with open(agent.state + '/journal', 'ab') as f:     # many that are gone: more than the journal is to hold
        for _ in range(80):
            r = json.dumps({'op': 'gone', 'id': new_id(), 'epoch': 1, 'at': int(time.time() * 1000), 'template': 'x' * 60000, 'build': 'y'})
            f.write(b'%08x %s\n' % (zlib.crc32(r.encode()), r.encode()))
    agent.start(pause_persist_sec=600)      # no other record meanwhile
    assert agent.call('GET', '/capsules')[1]['journal_complete'] is True
    assert patch(paused, timeout_sec=700, disk_size_mb=6144) == 200 and patch(running, timeout_sec=800) == 200
    lines = lambda: [(r['op'], r['id']) for c in (paused, running) for r in records(c)]     # noqa: E731
    wait_for('the rewriting', lambda: len(lines()) == 4)
    assert lines() == [('paused', paused), ('set', paused), ('up', running), ('set', running)], lines()
    agent.restart()
    for cid, state, sec in (paused, 'paused', 700), (running, 'running', 800):
        now = agent.get(cid)
        assert (now['state'], now['timeout_sec']) == (state, sec), now
    assert agent.get(paused)['disk_size_mb'] == 6144
    assert agent.post(paused, 'resume', 2)[0] == 200
    assert agent.delete(paused)[0] == 204 and agent.delete(running)[0] == 204


sys.exit(main(agent, globals(), 'grow'))
