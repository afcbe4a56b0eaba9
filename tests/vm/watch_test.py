#!/usr/bin/env python3
"""watch_test.py - what the host agent watches: idle time, metrics, logs, hung machines, pools, adoption.

usage: watch_test.py AGENT IMAGE_DIR [NAME...]    (a hutch-agent binary, images/build's output)

Real virtual machines, an agent of its own under /tmp. Rows of spec 02 §9: 13 with times of 6 s instead of 10,
4 without a control plane at all, 5 and 17 on one machine.
Prints "ok name" or "not ok name: why", at last "N passed, N failed, N skipped". Exit: 1 if any failed.
"""
import json, os, re, signal, subprocess, sys, threading, time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from watch_agent import TOKEN, Agent, kill, new_id, wait_for  # noqa: E402

IDLE = 6  # seconds of timeout_sec in these tests: a busy machine may take some for one call
agent = Agent(sys.argv[1], sys.argv[2], 'hutch-watch-', 66000, 24)


def asleep(cid):
    return agent.state_of(cid) == 'paused'


def awake_for(cid, seconds):
    end = time.time() + seconds
    while time.time() < end:
        assert agent.state_of(cid) == 'running', (agent.state_of(cid), agent.log_text()[-800:])
        time.sleep(0.2)


# ---- settings

def test_settings_are_checked():
    for bad in ({'timeout_sec': 2592001}, {'timeout_sec': 'x'}, {'timeout_mode': 'soon'}, {'idle_action': 'forget'},
                {'idle_signals': ['api', 'smell']}, {'idle_signals': 'api'}):
        status, got = agent.put(new_id(), **bad)
        assert status == 400 and got['error']['code'] == 'invalid_request', (bad, status, got)
    assert agent.inventory() == {}


# ---- row 13

def test_nobody_came():
    c = agent.create(timeout_sec=IDLE)
    wait_for('the idle pause', lambda: asleep(c))
    assert agent.inventory()[c]['paused_by'] == 'idle', agent.inventory()[c]
    said = re.search(r'idle for (\d+) s', agent.call('GET', '/capsules/%s/logs?source=agent' % c)[1].decode())
    assert said and int(said[1]) >= IDLE, said
    agent.delete(c)


def from_now(c):
    """Its time begins now: what shall keep it awake is there."""
    status, got = agent.call('PATCH', '/capsules/' + c, {'timeout_sec': IDLE}, ['hutch-epoch: 1'])
    assert status == 200, (status, got)


def held(c):
    """Waits for what holds it: then its idle time does not begin."""
    wait_for('what holds it', lambda: all(agent.get(c)['idle_ms'] == 0 for _ in range(4)))


def test_foreground_exec_holds():
    c = agent.create(timeout_sec=600)
    p = agent.start_process(c, 'sleep 599; echo done')
    held(c)
    from_now(c)
    awake_for(c, 2 * IDLE + 3)
    agent.run(c, 'pkill -f "^slee[p] 599"; true')
    assert b'"end"' in p.communicate()[0]
    wait_for('the idle pause after it', lambda: asleep(c))
    agent.delete(c)


def test_upload_holds():
    c = agent.create(timeout_sec=600)
    p = subprocess.Popen(['curl', '-sS', '--http2-prior-knowledge', '--unix-socket', agent.sock, '-X', 'POST', '-H',
                          'x-access-token: ' + TOKEN, '-H', 'content-type: application/octet-stream', '-T', '-',
                          'http://agent/agent/v1/capsules/%s/guest/files?path=/root/x' % c], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE)
    p.stdin.write(b'x' * 1000)
    p.stdin.flush()
    held(c)
    from_now(c)
    end = time.time() + 2 * IDLE
    while time.time() < end:
        p.stdin.write(b'x' * 1000)
        p.stdin.flush()
        time.sleep(0.3)
    assert agent.state_of(c) == 'running'
    p.communicate()
    agent.delete(c)


def typed_keys():
    """The state of one in which a key was typed every second, for twice its time; the longest silence between two."""
    c = agent.create(timeout_sec=IDLE)
    end, last, gap = time.time() + 2 * IDLE, time.time(), 0
    while time.time() < end:
        time.sleep(IDLE / 6)
        agent.verb(c, 'touch', {'signal': 'input'})
        gap, last = max(gap, time.time() - last), time.time()
    state = agent.state_of(c)
    assert agent.verb(c, 'touch', {'signal': 'smell'})[0] == 400
    agent.delete(c)
    return state, max(gap, time.time() - last)


def test_typed_keys_count():
    for _ in range(5):
        state, gap = typed_keys()
        if state == 'running':
            return
        assert gap > IDLE / 3, (state, gap)     # else it was this machine that did not type
    raise AssertionError('a key was never in time')


def test_watchers_do_not():
    c = agent.create(timeout_sec=IDLE)
    top = agent.start_process(c, 'while :; do date; sleep 0.2; done', ['hutch-activity: touch'], pty=True)
    began = time.time()
    while not asleep(c):
        for path in ('/capsules/' + c, '/capsules', '/capsules/%s/metrics' % c, '/capsules/%s/logs' % c):
            agent.call('GET', path)
        assert time.time() - began < IDLE + 60, 'a watcher keeps it awake'
        time.sleep(0.2)
    top.kill()
    top.communicate()
    agent.delete(c)


def test_signals_are_chosen():
    """Without exec among the signals a command in the foreground holds nothing."""
    c = agent.create(timeout_sec=IDLE, idle_signals=['input'])
    p = agent.start_process(c, 'sleep 500')
    wait_for('the idle pause', lambda: asleep(c))     # long before its end
    p.kill()
    p.communicate()
    agent.delete(c)


def test_fixed_time():
    c = agent.create(timeout_sec=IDLE, timeout_mode='fixed')
    began = time.time()
    while not asleep(c):
        if agent.state_of(c) == 'running':
            agent.verb(c, 'touch')
        assert time.time() - began < IDLE + 60, 'activity moved a fixed time'
        time.sleep(0.3)
    agent.delete(c)


def test_process_holds_when_asked():
    c = agent.create(timeout_sec=600, idle_signals=['api', 'process'])
    p = agent.start_process(c, 'sleep 777', ['hutch-activity: touch'])
    wait_for('the process', lambda: agent.run(c, 'pgrep -f "slee[p] 777"; true'))
    p.kill()
    p.communicate()
    from_now(c)
    awake_for(c, 2 * IDLE + 3)
    agent.run(c, 'pkill -f "slee[p] 777"; true')
    wait_for('the idle pause after it', lambda: asleep(c))
    agent.delete(c)


def test_destroy_is_only_a_pause_here():
    c = agent.create(timeout_sec=IDLE, idle_action='destroy')
    wait_for('the idle pause', lambda: asleep(c))
    assert c in agent.inventory()
    agent.delete(c)


# ---- logs and metrics

def test_logs():
    c = agent.create(boot='cold')
    boot = agent.call('GET', '/capsules/%s/logs?source=boot' % c)
    agent.run(c, 'for i in 1 2 3 4 5; do echo line-$i >/dev/hvc0; done')
    wait_for('the console', lambda: b'line-5' in agent.call('GET', '/capsules/%s/logs?source=serial' % c, head=True)[1])
    with open(agent.dir + '/head') as f:
        place = [line.split(':')[1].strip() for line in f if line.startswith('hutch-next')][0]
    # the guest's kernel may say something of its own between them
    tail = agent.call('GET', '/capsules/%s/logs?source=serial&tail=30' % c)[1].decode().splitlines()
    assert [x for x in tail if x.startswith('line-')] == ['line-%d' % n for n in (1, 2, 3, 4, 5)], tail
    assert len(agent.call('GET', '/capsules/%s/logs?source=serial&tail=2' % c)[1].splitlines()) == 2
    agent.run(c, 'echo more >/dev/hvc0')
    follows = wait_for('what follows', lambda: (lambda got: b'more' in got and got)(
        agent.call('GET', '/capsules/%s/logs?source=serial&from=%s' % (c, place))[1])).splitlines()
    assert b'more' in follows and not any(x.startswith(b'line-') for x in follows), follows
    assert boot[0] == 200
    notes = agent.call('GET', '/capsules/%s/logs?source=agent' % c)[1].decode()
    assert 'starting -> running' in notes, notes
    for bad in ('source=x', 'tail=-1', 'tail=10001', 'from=x'):
        assert agent.call('GET', '/capsules/%s/logs?%s' % (c, bad))[0] == 400, bad
    agent.delete(c)
    assert not os.path.exists(agent.state + '/log/' + c)


def test_a_flood_is_bounded():
    c = agent.create()
    agent.run(c, 'timeout 6 sh -c "while :; do head -c 100000 /dev/zero | tr \'\\\\0\' x; done >/dev/hvc0"; true')

    def size():
        try:
            return sum(os.path.getsize(agent.state + '/log/%s/%s' % (c, n)) for n in os.listdir(agent.state + '/log/' + c)
                       if n.startswith('serial'))
        except FileNotFoundError:     # the next file is begun just now
            return 0
    got = wait_for('its console', size)
    assert got <= 2 << 20, got
    assert os.path.getsize(agent.state + '/log/%s/boot' % c) <= 65536
    agent.delete(c)


def cache_of_a_file(c, size):
    """/root/big has the size: without it in the guest's page cache, and with it."""
    def last():
        return agent.call('GET', '/capsules/%s/metrics?tier=10m' % c)[1]['points'][-1].get('mem_cache_bytes', 0)
    agent.run(c, 'sync; echo 3 >/proc/sys/vm/drop_caches')
    now = 1024 * sum(int(n) for n in agent.run(c, "sed -nE 's/^(Cached|Buffers|SReclaimable): *([0-9]+) kB/\\2/p' /proc/meminfo").split())
    # the guest is asked once in 10 s: until that was after the drop
    wait_for('a cache without the file', lambda: 1 << 20 < last() < now + size // 4)
    empty = last()
    agent.run(c, 'cat /root/big >/dev/null')
    wait_for('a cache that grew', lambda: last() > empty + size // 2)


def test_metrics():
    c = agent.create()
    agent.run(c, 'dd if=/dev/zero of=/root/big bs=1M count=20 2>/dev/null; sync; timeout 3 sh -c "while :; do :; done"; true')

    def enough():
        got = agent.call('GET', '/capsules/%s/metrics?tier=10m' % c)[1]
        p = got['points']
        return (len(p) >= 12 and any('mem_guest_bytes' in x for x in p) and sum(x['disk_write'] for x in p) > 10 << 20
                and p[-1]['disk_bytes'] > 20 << 20 and got)
    got = wait_for('points', enough)
    now = time.time()
    points = got['points']
    assert got['step_ms'] == 1000 and got['sources']['mem_guest'] == 'guest', got
    assert max(x['cpu_pct'] for x in points) > 10 and all(0 <= x['cpu_pct'] <= 100 for x in points), points
    assert all(x['mem_bytes'] > 10 << 20 for x in points), points[-1]
    times = [x['timestamp_unix'] for x in points]
    assert times == sorted(times) and abs(times[-1] - now) < 30, (times[-1], now)
    cache_of_a_file(c, 20 << 20)
    assert agent.call('GET', '/capsules/%s/metrics?tier=1y' % c)[0] == 400
    status, got = agent.call('GET', '/capsules/%s/metrics?tier=24h' % c)
    assert status == 200 and got['step_ms'] == 300000
    agent.delete(c)
    assert agent.call('GET', '/capsules/%s/metrics' % c)[0] == 404


# ---- pools

def test_what_the_agent_says_of_itself():
    """Its log on disk is bounded and goes on over a restart; its metrics show the machine, itself and the pools."""
    c = agent.create()
    wait_for('a point', lambda: [p for p in agent.call('GET', '/metrics')[1]['points'] if p['running'] == 1])
    got = agent.call('GET', '/metrics?tier=10m')[1]
    p = got['points'][-1]
    assert abs(p['timestamp_unix'] - time.time()) < 30 and 0 <= p['cpu_pct'] <= 100, p
    assert p['capsules'] == 1 and p['running'] == 1, p
    assert 0 < p['mem_bytes'] < got['machine']['mem_bytes'] and 0 < p['disk_bytes'] < got['machine']['disk_bytes'], got
    assert 1 << 20 < p['agent_mem_bytes'] < 4 << 30 and got['agent']['started_unix'] <= time.time(), got
    shape = [q for q in got['pools'] if q['template'] == 'minimal' and q['memory_mb'] == 256]
    assert shape and sum(shape[0]['creates'].values()) >= 0 and shape[0]['image'] == 'ready', got['pools']
    assert agent.call('GET', '/metrics?tier=1s')[0] == 400
    lines = agent.call('GET', '/logs?tail=10000')[1]['lines']
    assert any('ready on' in x['message'] for x in lines) and all(x['program'] == 'agent' for x in lines), lines[-3:]
    # it may say something between the two questions
    wait_for('its last two lines', lambda: agent.call('GET', '/logs?tail=2')[1]['lines'] == agent.call('GET', '/logs?tail=10000')[1]['lines'][-2:])
    for bad in ('0', '10001', 'x', ''):
        assert agent.call('GET', '/logs?tail=' + bad)[0] == 400, bad
    agent.delete(c)
    file = agent.dir + '/state/log/agent.0'
    agent.stop(signal.SIGKILL)     # it knows the size of its file: nobody else may add to it
    with open(file, 'ab') as f:  # nearly full, its last line torn by a power cut
        while f.tell() < (1 << 20) - 200:
            f.write(b'{"message":"%s"}\n' % (b'x' * 80))     # more of them than are asked for
        f.write(b'{"mess\n')
    assert (1 << 20) - 200 < os.path.getsize(file) < 1 << 20
    agent.start()
    lines = [x['message'] for x in agent.call('GET', '/logs?tail=10000')[1]['lines']]
    torn = max(n for n, message in enumerate(lines) if message == 'x' * 80)
    assert any('ready on' in message for message in lines[torn:]), lines[torn:]
    assert os.path.getsize(file) < 1 << 20 and os.path.getsize(file[:-1] + '1') <= 1 << 20


def test_pools_follow_demand():
    """A burst of creates makes more hot clones stand ready; the creates got hot, then waiting ones, then processes."""
    wait_for('a ready clone', lambda: any(p['ready'] for p in agent.pools().values()))
    before = list(agent.pools().values())[0]
    ids = [new_id() for _ in range(4)]
    callers = [threading.Thread(target=agent.put, args=(c,)) for c in ids]
    for t in callers:
        t.start()
    for t in callers:
        t.join()
    assert all(agent.state_of(c) == 'running' for c in ids), agent.inventory()
    now = list(agent.pools().values())[0]
    assert sum(now['creates'].values()) - sum(before['creates'].values()) == 4, (before, now)
    assert now['creates']['hot'] > before['creates']['hot'] and now['want_ready'] >= 4, (before, now)
    wait_for('the pool to grow', lambda: list(agent.pools().values())[0]['ready'] >= 4)
    wait_for('a waiting one', lambda: list(agent.pools().values())[0]['waiting'] == 1)
    for c in ids:
        agent.delete(c)


def test_a_waiting_machine_is_taken():
    agent.stop()
    agent.start(pool_size=1, pool_max=1, pool_waiting=2)
    wait_for('a ready clone', lambda: any(p['ready'] for p in agent.pools().values()))
    agent.delete(agent.create())
    for _ in range(10):     # a second caller who comes late gets the next hot one
        wait_for('two waiting', lambda: list(agent.pools().values())[0]['waiting'] == 2)
        wait_for('a hot one', lambda: list(agent.pools().values())[0]['ready'] == 1)
        ids = [new_id() for _ in range(2)]
        callers = [threading.Thread(target=agent.put, args=(c,)) for c in ids]
        for t in callers:
            t.start()
        for t in callers:
            t.join()
        got = list(agent.pools().values())[0]['creates']
        for c in ids:
            assert agent.run(c, 'echo hi') == 'hi\n'
            agent.delete(c)
        if got['waiting'] >= 1:
            break
    assert got['waiting'] >= 1, got


def test_pools_give_back_memory():
    """Under memory pressure (here: a limit that nothing can meet) pools are dropped, and not refilled."""
    agent.stop()
    agent.start(min_free_memory_percent=90)
    wait_for('no clones', lambda: all(p['ready'] + p['waiting'] + p['making'] == 0 for p in agent.pools().values()))
    for _ in range(10):
        time.sleep(0.2)
        assert all(p['ready'] + p['waiting'] + p['making'] == 0 for p in agent.pools().values()), agent.pools()
    agent.stop()
    agent.start(min_free_memory_percent=1, pool_size=1, pool_max=8, pool_waiting=1)
    wait_for('a ready clone', lambda: any(p['ready'] for p in agent.pools().values()))


# ---- hung machines

def test_hung_machine():
    agent.stop()
    agent.start(hung_sec=15)     # long enough for a good one that waits for a busy processor
    good, c = agent.create(), agent.create()
    kill(agent.vm_of(c), signal.SIGSTOP)
    wait_for('its end', lambda: agent.state_of(c) == 'error')
    got = agent.call('GET', '/capsules/' + c)[1]
    assert got['error']['code'] == 'vmm_hung' and got['exit']['signal'] == 9, got
    assert agent.state_of(good) == 'running' and agent.run(good, 'echo fine') == 'fine\n'
    assert 'silent' in agent.call('GET', '/capsules/%s/logs?source=agent' % c)[1].decode()
    agent.stop(signal.SIGKILL)
    agent.start(hung_sec=30)
    assert agent.call('GET', '/capsules/' + c)[1]['error']['code'] == 'vmm_hung'
    for x in (good, c):
        agent.delete(x)


# ---- settings and time over restarts of the agent

def test_idle_time_over_a_restart():
    """The settings are the journal's, the time is the file's: neither begins anew with another agent."""
    c = agent.create(timeout_sec=600)
    status, got = agent.call('PATCH', '/capsules/' + c, {'timeout_sec': 40, 'idle_signals': ['input']}, ['hutch-epoch: 1'])
    assert status == 200, (status, got)
    assert agent.call('PATCH', '/capsules/' + c, {'timeout_sec': 'x'}, ['hutch-epoch: 1'])[0] == 400
    wait_for('half of its time', lambda: agent.call('GET', '/capsules/' + c)[1]['idle_ms'] >= 20000)
    agent.stop()
    agent.start()
    began = time.time()
    quiet = agent.call('GET', '/capsules/' + c)[1]
    assert quiet['timeout_sec'] == 40 and quiet['idle_ms'] >= 19000, quiet
    wait_for('the idle pause', lambda: asleep(c))
    assert time.time() - began < 39, 'the time began anew'     # 20 s were left, anew it were 40
    agent.delete(c)


# ---- rows 5 and 17

def test_adoption_at_volume():
    """As many machines as this one carries (20, or WATCH_VMS): all are there within 10 s, none was started again."""
    number = int(os.environ.get('WATCH_VMS', 20))
    agent.stop()
    agent.start(uid_count=2 * number + 20, pool_size=2)
    ids = [agent.create() for _ in range(number)]
    boots = {c: agent.run(c, 'cat /proc/sys/kernel/random/boot_id') for c in ids}
    pids = {c: agent.vm_of(c) for c in ids}
    for _ in range(3):     # this machine itself may stand still for a while
        agent.stop(signal.SIGKILL)
        took = agent.start()
        now = agent.inventory()
        assert all(now.get(c, {}).get('state') == 'running' for c in ids), now
        if took < 10:
            break
    assert took < 10, '%d machines: %.1f s' % (number, took)
    print('# %d machines adopted in %.2f s' % (number, took))
    for c in ids:
        assert agent.run(c, 'cat /proc/sys/kernel/random/boot_id') == boots[c]
        assert agent.vm_of(c) == pids[c]
    for c in ids:
        agent.delete(c)


def test_power_cut_after_a_pause():
    """Agent and machines end some seconds after a pause, as by a power cut: paused on disk; a resume finds the processes."""
    c = agent.create()
    p = agent.start_process(c, 'i=0; while :; do i=$((i+1)); echo $i >/root/count; sleep 0.2; done', ['hutch-activity: touch'])

    def count():
        return int(agent.run(c, 'cat /root/count 2>/dev/null') or 0)
    wait_for('its count', lambda: count() > 1)
    status, got = agent.verb(c, 'pause', {'by': 'user'})
    assert status == 200 and got['state'] == 'paused', (status, got)
    p.kill()
    p.communicate()
    wait_for('its image', lambda: c + ': its image is saved' in agent.log())
    agent.stop(signal.SIGKILL)
    agent.kill_all()
    agent.start()
    now = agent.inventory()[c]
    assert now['state'] == 'paused' and now['residency'] == 'disk', now
    status, got = agent.verb(c, 'resume', {'access_token': TOKEN}, epoch=2)
    assert status == 200, (status, got)
    first = wait_for('its count again', count)
    assert first > 1, first
    wait_for('it to go on', lambda: count() > first)
    agent.delete(c, 2)


TESTS = [v for k, v in list(globals().items()) if k.startswith('test_')]


def main():
    passed = failed = 0
    wanted = sys.argv[3:]
    try:
        agent.start()
        wait_for('an image', lambda: agent.delete(agent.create())[0] == 204, 1)
        wait_for('a ready clone', lambda: any(p['ready'] for p in agent.pools().values()))
        for test in TESTS:
            name = test.__name__[5:]
            if wanted and name not in wanted:
                continue
            began = time.time()
            try:
                test()
                passed += 1
                print('ok %s (%.1f s)' % (name, time.time() - began))
            except Exception as e:  # noqa: BLE001
                failed += 1
                print('not ok %s: %s: %s' % (name, type(e).__name__, str(e)[:1500]))
            sys.stdout.flush()
    finally:
        agent.end(keep=bool(failed))
        if failed:
            print('# see ' + agent.dir)
    print('%d passed, %d failed, 0 skipped' % (passed, failed))
    return failed > 0


if __name__ == '__main__':
    sys.exit(main())
