#!/usr/bin/env python3
"""engine_grow_test.py - a disk grows at once (spec 02 §2.3): below a running guest, and when a sleeping one wakes.

usage: engine_grow_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary of a DEV build)
"""
import os, signal, sys, threading

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


sys.exit(main(agent, globals(), 'grow'))
