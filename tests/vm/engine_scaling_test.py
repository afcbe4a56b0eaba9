#!/usr/bin/env python3
"""engine_scaling_test.py - what the control plane wants to stand ready (spec 02 §5.7, §5.8), on an agent whose own pools are off.

usage: engine_scaling_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary, images/build's output)

The tests stand in their order: each may use what the ones before left.
"""
import json, os, sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_lib import Agent, main, new_id, wait_for

agent = Agent(sys.argv[1], sys.argv[2], 65450)
KEPT = agent.state + '/scaling.json'


def row(memory_mb=256, hot=1, waiting=1, **more):
    return dict(dict(template='minimal', vcpus=1, memory_mb=memory_mb, hot=hot, waiting=waiting), **more)


def scale(version, *rows, **more):
    return agent.call('PUT', '/scaling', dict(version=version, pools=rows, **more))


def scaled(version, *rows, **more):
    status, got = scale(version, *rows, **more)
    assert status == 200 and got == {'version': version}, (status, got)


def info():
    return agent.call('GET', '/info')[1]


def pool(memory_mb=256):
    return next((p for name, p in agent.pools().items() if name.endswith('/1x%d' % memory_mb)), None)


def holds(hot, waiting, memory_mb=256):
    """Exactly so many stand ready, nothing is being made, and these are all machines there are."""
    def there():
        p = pool(memory_mb)
        return (p and p['image'] == 'ready' and (p['ready'], p['waiting'], p['making']) == (hot, waiting, 0) and
                (p['want_ready'], p['want_waiting']) == (hot, waiting) and len(agent.qemus()) == hot + waiting)
    wait_for('%d hot, %d waiting of %d MiB' % (hot, waiting, memory_mb), there, 400)


def test_nothing_was_said():
    assert info()['scaling'] == '' and agent.pools() == {} and agent.qemus() == {}
    assert agent.call('GET', '/capsules')[1]['scaling'] == ''


def test_refused():
    good = dict(version='1-1', pools=[row()])
    bad = [dict(good, version=v) for v in ('', None, 7, 'A/b', 'x' * 65)] + [dict(good, pools=p) for p in (
        None, {}, [5], [row(template='')], [row(vcpus=0)], [row(vcpus=17)], [row(memory_mb=127)], [row(memory_mb='256')],
        [row(hot=-1)], [row(hot=65)], [row(hot=1.5)], [row(waiting=65)], [row()] * 33)] + [
        dict(good, warm_memory_percent=p) for p in (-1, 91, 'much')]
    for body in bad:
        status, got = agent.call('PUT', '/scaling', body)
        assert status == 400 and got['error']['code'] == 'invalid_request', (body, status, got)
    assert info()['scaling'] == '' and agent.pools() == {} and not os.path.exists(KEPT)


def test_ready_before_anybody_asked():
    """Of a shape that was never used: its memory is made, one clone stands hot, one machine waits."""
    scaled('1-1', row(), row(template='nothere'))
    assert info()['scaling'] == '1-1' and agent.call('GET', '/capsules')[1]['scaling'] == '1-1'
    with open(KEPT) as f:
        assert json.load(f)['version'] == '1-1'
    assert os.stat(KEPT).st_mode & 0o777 == 0o600
    holds(1, 1)


def test_a_create_takes_the_hot_one():
    before, cid = agent.qemus(), new_id()
    status, got = agent.put(cid)
    assert status == 200 and got['start_mode'] == 'warm', (status, got)
    assert agent.vm_of(cid) in before.values(), (before, agent.vm_of(cid))
    assert pool()['creates'] == {'hot': 1, 'waiting': 0, 'spawned': 0}, pool()
    assert agent.delete(cid)[0] == 204
    holds(1, 1)     # refilled


def test_a_new_agent_goes_on_with_it():
    agent.restart()     # kill -9: its clones are nobody's, and go
    assert info()['scaling'] == '1-1'
    holds(1, 1)


def test_another_setting_replaces_it():
    scaled('2-2', row(hot=0, waiting=2))
    holds(0, 2)
    scaled('2-2', row(hot=0, waiting=2))     # again: nothing happens
    holds(0, 2)
    scaled('3-3', row(hot=0, waiting=0))     # its memory stays, no machines
    holds(0, 0)


def test_the_share_of_memory():
    """Rows get their memory in their order, as far as the share goes; the rest is told, and not made."""
    with open('/proc/meminfo') as f:
        mib = int(f.readline().split()[1]) // 1024
    least = 300 * 100 // mib + 1     # percent that hold 256 MiB
    too_much = (mib * least // 100) // 128 * 128 + 128
    if too_much > 65536:
        too_much = 65536
    scaled('4-4', row(hot=0, waiting=0), row(too_much), warm_memory_percent=least)
    got = info()
    assert got['warm_memory_mb'] in range(mib * least // 100 - least - 1, mib * least // 100 + 1), (got['warm_memory_mb'], mib, least)
    assert 'warm_memory_short' in got['conditions'] and pool(too_much) is None, got
    holds(0, 0)
    scaled('5-5', row(hot=0, waiting=0))
    got = info()
    assert 'warm_memory_short' not in got['conditions'] and got['warm_memory_mb'] in range(mib // 4 - 25, mib // 4 + 1), got


def test_damaged():
    """A file that cannot be read is as none: the control plane sees it, and says the setting again."""
    agent.stop()
    with open(KEPT, 'r+') as f:
        f.truncate(20)
    agent.start()
    assert info()['scaling'] == ''
    scaled('6-6', row(hot=1, waiting=0))
    holds(1, 0)


def test_taken_back():
    status, _ = agent.call('DELETE', '/scaling')
    assert status == 204 and info()['scaling'] == '' and not os.path.exists(KEPT)
    holds(0, 0)
    assert agent.call('DELETE', '/scaling')[0] == 204     # again: nothing happens
    agent.restart()
    assert info()['scaling'] == ''
    holds(0, 0)


if __name__ == '__main__':
    sys.exit(main(agent, globals(), 'scaling'))
