#!/usr/bin/env python3
"""engine_test.py - the host agent with real virtual machines, from outside.

usage: engine_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary, images/build's output)

The tests stand in their order: each may use what the ones before left.
"""
import glob, http.server, json, os, signal, socketserver, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_lib import TOKEN, Agent, Skip, kill, main, new_id, wait_for

UID_FIRST, UID_COUNT = 64900, 12
agent = Agent(sys.argv[1], sys.argv[2], UID_FIRST, uid_count=UID_COUNT, pool_size=1, network_mode=None,
              user=os.environ.get('ENGINE_USER', ''))     # the account that the agent changes to
STATE = agent.state
os.chmod(agent.dir, 0o755)     # for that account
start, stop, call, put, run = agent.start, agent.stop, agent.call, agent.put, agent.run
inventory, pools, qemus = agent.inventory, agent.pools, agent.qemus


def delete(cid, epoch=1):
    return agent.delete(cid, epoch)


def pool_ready():
    return any(p['image'] == 'ready' and p['ready'] > 0 for p in pools().values())


def status_of(pid, field):
    with open('/proc/%d/status' % pid) as f:
        for line in f:
            if line.startswith(field + ':'):
                return line.split(':')[1].split()


cold, warm_a, warm_b = new_id(), new_id(), new_id()


def test_cold_create():
    status, got = put(cold, boot='cold')
    assert status == 200 and got['state'] == 'running' and got['start_mode'] == 'cold', (status, got)
    assert run(cold, 'echo $GREETING; hostname') == 'hello\nhutch\n'


def test_same_epoch_again_is_no_op():
    before = qemus()
    status, got = put(cold, boot='cold')
    assert status == 200 and got['epoch'] == 1, (status, got)
    assert qemus().keys() >= before.keys()


def test_stale_epoch():
    status, got = put(cold, epoch=0)
    assert status == 409 and got['error']['code'] == 'stale_epoch', (status, got)


def test_bad_requests():
    head = ['hutch-epoch: 1']
    for body in (b'', b'{', b'[]', b'{"epoch":1,"epoch":1}', b'{"epoch":NaN}', b'\xff', b'{"epoch":1}',
                 b'{"epoch":2,"template":"minimal","access_token":"t"}',
                 b'{"epoch":1,"template":"minimal","access_token":"t","vcpus":0}',
                 b'{"epoch":1,"template":"minimal","access_token":"t","envs":{"A":1}}'):
        status, got = call('PUT', '/capsules/' + new_id(), body, head)
        assert status == 400 and got['error']['code'] == 'invalid_request', (body, status, got)
    assert call('PUT', '/capsules/' + new_id(), b'{}')[0] == 400      # no epoch
    assert call('PUT', '/capsules/cl-zz', b'{}', head)[0] == 400      # no id
    assert call('PUT', '/capsules/' + new_id(), b' ' * 1100000, head)[0] == 413
    assert put(new_id(), template='nothere')[0] == 404
    assert put(new_id(), template='../minimal')[0] == 404


def test_guest_refuses():
    """A start that fails at its last step is undone, told, and may be repeated."""
    c = new_id()
    status, got = put(c, hostname='-no name-')
    assert status == 400 and 'host' in got['error']['message'], (status, got)
    assert inventory()[c]['error']['code'] == 'start_failed', inventory()[c]
    assert put(c)[0] == 200
    assert delete(c)[0] == 204


def test_unknown():
    assert delete(new_id())[0] == 404
    assert call('GET', '/capsules/' + new_id())[0] == 404
    assert call('GET', '/nothing')[0] == 404
    assert call('POST', '/info', b'{}')[0] == 405
    assert call('GET', '/capsules/%s/guest/health' % new_id())[0] == 404


def test_bridge_refuses():
    for path in ('init', 'freeze', 'unfreeze', '/init', 'init/'):
        status, _ = call('POST', '/capsules/%s/guest/%s' % (cold, path), b'{}')
        assert status == 404, (path, status)
    assert call('GET', '/capsules/%s/guest/health' % cold)[0] == 204
    assert call('GET', '/capsules/%s/guest/envs' % cold)[0] == 401


def test_own_uid_and_seccomp():
    # of machines that run: one that is being started has not given up everything yet
    mine = [agent.vm_of(c) for c, k in inventory().items() if k['state'] == 'running']
    assert mine
    for pid in mine:
        uid = int(status_of(pid, 'Uid')[0])
        if os.geteuid() == 0:
            assert UID_FIRST <= uid < UID_FIRST + UID_COUNT, uid
            assert status_of(pid, 'Groups') == [] and int(status_of(pid, 'CapEff')[0], 16) == 0
        assert status_of(pid, 'Seccomp') == ['2'] and status_of(pid, 'NoNewPrivs') == ['1']
        assert os.getsid(pid) == pid
    uids = []
    for pid in qemus().values():
        try:
            uids.append(status_of(pid, 'Uid')[0])
        except OSError:     # that of an image that was made ends by itself
            pass
    assert os.geteuid() != 0 or len(set(uids)) == len(uids), uids


def test_no_way_to_the_host():
    with socketserver.TCPServer(('127.0.0.1', 0), http.server.SimpleHTTPRequestHandler) as srv:
        threading.Thread(target=srv.serve_forever, daemon=True).start()
        out = run(cold, 'curl -s -m 3 http://10.0.2.2:%d/ >/dev/null; echo $?' % srv.server_address[1])
        srv.shutdown()
    assert out.strip() not in ('0', ''), out


def test_memory_image_and_pool():
    wait_for('a ready clone', pool_ready)


def test_warm_create():
    status, got = put(warm_a, hostname='alpha')
    assert status == 200 and got['start_mode'] == 'warm', (status, got)
    print('# warm from the pool: %d ms' % got['took_ms'])
    status, got = put(warm_b, hostname='beta')
    assert status == 200 and got['start_mode'] == 'warm', (status, got)
    print('# warm, the next at once: %d ms' % got['took_ms'])


def test_clones_differ():
    command = ('head -c 16 /dev/urandom | od -An -tx1; cat /etc/machine-id; hostname; '
               'cat /proc/sys/kernel/random/boot_id; cat /proc/sys/kernel/random/uuid')
    a, b = run(warm_a, command).split('\n'), run(warm_b, command).split('\n')
    for x, y in zip(a[:5], b[:5]):
        assert x and x != y, (a, b)
    assert a[2] == 'alpha' and b[2] == 'beta', (a, b)
    begin = time.time()
    clock = int(run(warm_a, 'date +%s'))
    assert begin - 3 < clock < time.time() + 3, (begin, clock)
    assert run(warm_a, 'echo mine >/root/x; cat /root/x') == 'mine\n'
    assert run(warm_b, 'ls /root/x 2>/dev/null; echo $?').strip() != '0'


def test_disk_grows():
    cid = new_id()
    status, got = put(cid, disk_size_mb=8192)
    assert status == 200, got
    size = int(run(cid, 'df -BM --output=size / | tail -1').strip().rstrip('M'))
    assert size > 7000, size
    assert delete(cid)[0] == 204


def test_hot_create():
    wait_for('a ready clone', pool_ready)
    time.sleep(1)
    cid = new_id()
    status, got = put(cid)
    assert status == 200 and got['start_mode'] == 'warm', (status, got)
    print('# hot: %d ms' % got['took_ms'])
    assert delete(cid)[0] == 204


def test_large_bodies_through_the_bridge():
    size = 24 << 20
    data = os.urandom(1 << 20) * (size >> 20)
    status, _ = call('POST', '/capsules/%s/guest/files?path=/root/big&username=root' % warm_a, data,
                     ['content-type: application/octet-stream', 'x-access-token: ' + TOKEN])
    assert status == 200, status
    status, back = call('GET', '/capsules/%s/guest/files?path=/root/big&username=root' % warm_a, None,
                        ['x-access-token: ' + TOKEN])
    assert status == 200 and back == data, (status, len(back))


def test_a_reader_that_stops_stops_only_itself():
    slow = subprocess.Popen(['curl', '-sS', '-N', '--http2-prior-knowledge', '--unix-socket', agent.sock, '-o', '-',
                             '-H', 'x-access-token: ' + TOKEN, 'http://agent/agent/v1/capsules/%s/guest/files'
                             '?path=/root/big&username=root' % warm_a], stdout=subprocess.PIPE)
    try:
        time.sleep(1.5)    # its pipe is full by now
        assert run(warm_a, 'echo still here') == 'still here\n'
        assert run(warm_b, 'echo here too') == 'here too\n'
    finally:
        slow.kill()
        slow.wait()


def test_kill_9_and_adopt():
    boot = run(warm_a, 'cat /proc/sys/kernel/random/boot_id')
    run(warm_a, 'sleep 1000 >/dev/null 2>&1 & echo $! >/root/pid')
    before = {c: agent.vm_of(c) for c in (cold, warm_a, warm_b)}
    stop(signal.SIGKILL)
    time.sleep(0.3)
    assert set(before.values()) <= set(qemus().values()), (before, qemus())     # the pool may have had one in the making
    at = time.time()
    start()
    print('# adopted and ready after %d ms' % ((time.time() - at) * 1000))
    now = inventory()
    assert {cold, warm_a, warm_b} == set(now), now
    assert before == {c: agent.vm_of(c) for c in before}
    assert all(c['state'] == 'running' for c in now.values()), now
    assert run(warm_a, 'cat /proc/sys/kernel/random/boot_id') == boot
    assert run(warm_a, 'kill -0 $(cat /root/pid) && echo alive') == 'alive\n'
    status, got = put(warm_a)    # the job that repeats its create
    assert status == 200 and got['state'] == 'running', (status, got)


def test_qemu_dies():
    c = new_id()
    assert put(c)[0] == 200
    victim = agent.vm_of(c)
    assert victim in qemus().values()
    os.kill(victim, signal.SIGKILL)
    wait_for('the exit record', lambda: inventory()[c]['state'] == 'error')
    assert inventory()[c]['exit']['signal'] == 9, inventory()[c]
    status, got = call('GET', '/capsules/%s/guest/health' % c)
    assert status == 409 and got['error']['code'] == 'invalid_state', (status, got)
    assert delete(c)[0] == 204
    assert c not in inventory()


def test_destroy_leaves_nothing():
    for c in (cold, warm_a, warm_b):
        assert delete(c)[0] == 204
        assert delete(c)[0] == 404
    status, got = put(cold)
    assert status == 409 and got['error']['code'] == 'stale_epoch', (status, got)
    assert inventory() == {}
    wait_for('the pool', pool_ready)
    wait_for('nothing but the pool', only_the_pool)


def only_the_pool():
    """Machines, folders and user ids are those of ready clones: the pool may grow or shrink while they are counted."""
    info = call('GET', '/info')[1]
    ready = sum(p['ready'] for p in info['pools'].values())
    return info['starting'] == 0 and len(qemus()) == len(os.listdir(STATE + '/vm')) == ready == UID_COUNT - info['uids_free']


def test_churn():
    """Creates, destroys while they start, QEMUs that are killed: all at once, and nothing is left."""
    wrong = []

    def one(n):
        c, status = new_id(), 0
        try:
            if n % 3 == 0:      # destroyed while it starts
                t = threading.Thread(target=put, args=(c,))
                t.start()
                time.sleep(0.05 * (n % 7))
                status, got = delete(c)
                t.join()
                ok = status in (204, 404)
            else:
                status, got = put(c)
                ok = status in (200, 502, 503)
                if status == 200 and n % 3 == 1:
                    ok = run(c, 'echo $GREETING') == 'hello\n'
            status, got = delete(c)
            ok = ok and status in (204, 404)
        except (AssertionError, OSError) as e:
            ok, got = False, e
        if not ok:
            wrong.append((n, status, got))

    def killer():
        pids = list(qemus().values())
        if pids:
            kill(pids[-1])

    for round in range(3):
        threads = [threading.Thread(target=one, args=(round * 6 + n,)) for n in range(6)]
        for t in threads:
            t.start()
        time.sleep(0.3)
        if round == 1:
            killer()
        for t in threads:
            t.join()
    wrong = [w for w in wrong if not (w[0] // 6 == 1)]      # the killed one may be anybody's
    assert not wrong, wrong
    for c in inventory():
        delete(c)
    wait_for('nothing but the pool', only_the_pool)


def test_crash_points():
    for point, left in (('create.3', False), ('create.4', False), ('create.5', True), ('destroy.3', False),
                        ('destroy.4', False)):
        stop()
        start(env={'HUTCH_CRASH_AT': point})
        c = new_id()
        try:
            status, _ = put(c)
            status, _ = delete(c)
        except OSError:
            pass
        try:
            agent.process.wait(30)
        except subprocess.TimeoutExpired:
            agent.restart()
            raise Skip('not a development build')
        start()
        wait_for('the end of what was begun',
                 lambda: not any(k['state'] in ('starting', 'stopping') for k in inventory().values()))
        have = inventory().get(c, {}).get('state')
        if point == 'create.5':
            assert have == 'running', (point, have)
        elif point.startswith('create'):
            assert have == 'error', (point, have)
            assert put(c)[0] == 200, point     # the same epoch, again: it never ran
        else:
            assert have is None, (point, have)
        if have:
            assert delete(c)[0] == 204, point
    assert inventory() == {}


def test_corrupt_image_is_refused_and_made_anew():
    stop()
    with open(glob.glob(STATE + '/memory/minimal-*')[0]) as f:
        path = '%s/artifacts/%s/memory' % (STATE, f.read())
    os.chmod(path, 0o600)
    with open(path, 'r+b') as f:
        f.seek(os.lseek(f.fileno(), 0, os.SEEK_DATA))
        f.write(b'damage')
    start()
    c = new_id()
    status, got = put(c)
    assert status == 200, got
    wait_for('the word of it', lambda: 'is refused and made anew' in agent.log())
    assert delete(c)[0] == 204
    wait_for('a new image', pool_ready)


def test_torn_and_lost_journal():
    c = new_id()
    assert put(c)[0] == 200
    stop(signal.SIGKILL)
    with open(STATE + '/journal', 'ab') as f:
        f.write(b'12345678 {"op":"go')     # torn by a crash
    start()
    assert inventory()[c]['state'] == 'running'
    assert call('GET', '/capsules')[1]['journal_complete'] is True
    assert delete(c)[0] == 204


def free_memory():
    with open('/proc/meminfo') as f:
        kb = {line.split(':')[0]: int(line.split()[1]) for line in f}
    return kb['MemAvailable'] / kb['MemTotal']


def test_full():
    stop()
    start(pool_size=0, min_free_disk_gb=100000)
    status, got = put(new_id())
    assert status == 507 and got['error']['code'] == 'out_of_space', (status, got)
    stop()
    start(pool_size=0, min_free_memory_percent=90)
    c, before = new_id(), free_memory()
    status, got = put(c)
    if max(before, free_memory()) < 0.88:     # others use and free some meanwhile
        assert status == 503 and got['error']['code'] == 'overloaded', (status, got)
    elif status == 200:
        assert delete(c)[0] == 204
    stop()
    start(pool_size=0, uid_count=1)
    a, b = new_id(), new_id()
    assert put(a)[0] == 200
    status, got = put(b)
    assert status == 503 and got['error']['code'] == 'overloaded', (status, got)
    assert b not in inventory()
    assert delete(a)[0] == 204


class Control(http.server.BaseHTTPRequestHandler):
    """A control plane as small as can be."""
    seen, heard, refused, broken = [], [], [], False     # heard: what was taken

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
        self.seen.append((self.path, body, self.headers.get('X-Host-Token')))
        status, answer = 200, {}
        if self.broken:
            status, answer = 503, {'error': {'code': 'unavailable', 'message': 'test'}}
        elif self.path == '/v1/hosts/register':
            answer = {'host': {'id': 'host-1'}, 'token': 'a.b.c', 'refresh_token': 'r1'}
        elif self.path == '/v1/hosts/auth/refresh':
            answer = {'host': {'id': 'host-1'}, 'token': 'd.e.f', 'refresh_token': 'r2'}
        elif self.headers.get('X-Host-Token') == 'a.b.c' and len(self.seen) > 4:
            status, answer = 401, {}
        elif self.path.endswith('/reports'):
            answer = {'acked': body['sequence']}
        (self.heard if status == 200 else self.refused).append((self.path, body))
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header('Content-Length', str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *args):
        pass


def test_control_plane():
    srv = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Control)
    threading.Thread(target=srv.serve_forever, daemon=True).start()
    token = agent.dir + '/token'
    with open(token, 'w') as f:
        f.write('once-only\n')
    os.chmod(token, 0o644)
    stop()
    agent.extra = 'host {\n\theartbeat_sec = 1\n}\n'
    start(pool_size=0, control_url='http://127.0.0.1:%d' % srv.server_address[1], token_file=token, name='testhost')
    seen = Control.seen
    wait_for('a heartbeat', lambda: any(p == '/v1/hosts/host-1/heartbeat' for p, _, _ in seen))
    path, body, _ = seen[0]
    assert path == '/v1/hosts/register' and body['token'] == 'once-only' and body['name'] == 'testhost', body
    assert body['templates'] and body['cpu_cores'] > 0 and body['accel'] == 'tcg', body
    c = new_id()
    assert put(c)[0] == 200

    def reported(state, where):
        return any(x['id'] == c and x['state'] == state and x['epoch'] == 1
                   for p, b in list(where) if p.endswith('/reports') for x in b['changes'])
    wait_for('the report', lambda: reported('running', Control.heard))
    # the old token is refused: it is renewed at once
    wait_for('the new token', lambda: any(t == 'd.e.f' for _, _, t in list(seen)))
    assert os.stat(STATE + '/host.json').st_mode & 0o777 == 0o600
    # the control plane fails: nothing happens to capsules, reports wait
    Control.broken = True
    assert run(c, 'echo on') == 'on\n'
    assert delete(c)[0] == 204
    wait_for('a report that is refused', lambda: reported('stopped', Control.refused))
    assert not reported('stopped', Control.heard)
    Control.broken = False
    wait_for('the late report', lambda: reported('stopped', Control.heard))
    assert TOKEN not in agent.log() and 'once-only' not in agent.log()
    srv.shutdown()


def test_no_secrets_on_disk():
    for path in glob.glob(STATE + '/journal*'):
        with open(path, 'rb') as f:
            assert TOKEN.encode() not in f.read(), path
    for path in glob.glob('/proc/[0-9]*/cmdline'):
        try:
            with open(path, 'rb') as f:
                text = f.read()
        except OSError:
            continue
        assert TOKEN.encode() not in text or b'engine_test' in text or b'curl' in text, path


sys.exit(main(agent, globals(), 'engine'))
