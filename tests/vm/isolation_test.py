#!/usr/bin/env python3
"""isolation_test.py - what keeps capsules apart, with real virtual machines (spec 02 §6.7, §6.8, acceptance 40).

usage: isolation_test.py AGENT IMAGE_DIR

An agent of its own in a network namespace, with a small internet behind it (isolation_net.py). Needs root, nftables,
QEMU, curl with HTTP/2; without them it says why it is skipped. Prints "ok name" or "not ok name: why", at last
"N passed, N failed, N skipped". Exit: 1 if any failed.
"""
import glob, http.server, json, os, re, shutil, signal, socketserver, subprocess, sys, tempfile, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import isolation_net as net
from watch_agent import Agent, kill, wait_for

TAG = '%d' % (os.getpid() % 100000)
UID_FIRST, UID_COUNT = 65300, 12


def skip(why):
    print('1..0 # skipped: ' + why)
    print('0 passed, 0 failed, 1 skipped')
    sys.exit(0)


if os.geteuid() != 0:
    skip('needs root')
if subprocess.run(['unshare', '-n', 'true'], stderr=subprocess.DEVNULL).returncode:
    skip('network namespaces cannot be made here')

PROGRAM, IMAGES = sys.argv[1], sys.argv[2]
DIR = tempfile.mkdtemp(prefix='hutch-isolation-')
os.chmod(DIR, 0o755)
internet = net.Internet(TAG, DIR)
with open(DIR + '/agent', 'w') as f:
    f.write('#!/bin/sh\nexec nsenter --net=/run/netns/%s %s "$@"\n' % (internet.host, os.path.abspath(PROGRAM)))
os.chmod(DIR + '/agent', 0o755)
try:
    import pwd
    USER = pwd.getpwnam('hutch').pw_name
except KeyError:
    USER = 'nobody'
agent = Agent(DIR + '/agent', IMAGES, 'hutch-isolation-agent-', UID_FIRST, UID_COUNT, user=USER, resolver=net.DNS)
os.chmod(agent.dir, 0o755)
OPEN, SHUT = {'internet': True}, {'internet': False}


def status_of(pid):
    with open('/proc/%d/status' % pid) as f:
        return dict(line.rstrip('\n').split(':\t', 1) for line in f if ':\t' in line)


def inside_host(*command):
    return subprocess.run(internet.inside(*command), stdout=subprocess.PIPE, text=True).stdout


def links():
    return re.findall(r'(hutch\d+)@', inside_host('ip', '-o', 'link'))


def groups():
    """Control groups of this agent's capsules; the folder is named by the state directory."""
    s = os.stat(agent.state)
    return glob.glob('/sys/fs/cgroup/**/hutch-%x-%x/u*' % (s.st_dev, s.st_ino), recursive=True)


def cut(cid, address, port):
    return not reaches(cid, address, port, 3)


def quiet():
    """Nothing is on its way any more; what is counted after this comes after this."""
    wait_for('silence', lambda: internet.seen() == {})


def patch(cid, network):
    return agent.call('PATCH', '/capsules/' + cid, {'network': network}, ['hutch-op: patch', 'hutch-epoch: 1'])


def web(cid, url, more='', seconds=60):
    """What is answered; a time for what must come, as a busy machine is slow."""
    return agent.run(cid, 'curl -sk -m %s %s %s; true' % (seconds, more, url)).strip()


def shut(cid, url, more=''):
    """Nothing is answered, within the time that a quick machine needs many times over."""
    return web(cid, url, more, 4) == ''


def reaches(cid, address, port, seconds=60):
    return agent.run(cid, "timeout %s bash -c ': </dev/tcp/%s/%d' 2>/dev/null && echo yes; true" % (seconds, address, port)) == 'yes\n'


# ---- the tests, in this order: each may use what the ones before left ----

def test_cage():
    """What a VM's process has given up, from /proc."""
    global one
    one = agent.create(network=OPEN)
    pid = agent.vm_of(one)
    s = status_of(pid)
    uid = int(s['Uid'].split()[0])
    assert UID_FIRST <= uid < UID_FIRST + UID_COUNT and s['Uid'] == '\t'.join([str(uid)] * 4) == s['Gid'], s
    assert s['Groups'].strip() == '' and s['NoNewPrivs'] == '1' and s['Seccomp'] == '2', s
    for field in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
        assert int(s[field], 16) == 0, (field, s[field])
    for kind in ('net', 'mnt'):
        assert os.stat('/proc/%d/ns/%s' % (pid, kind)).st_ino != os.stat('/proc/self/ns/' + kind).st_ino, kind
    seen = set(os.listdir('/proc/%d/root' % pid))
    assert seen <= {'bin', 'lib', 'lib32', 'lib64', 'usr', 'etc', 'dev', 'proc'}, seen
    assert set(os.listdir('/proc/%d/root/etc' % pid)) <= {'ld.so.cache'}
    with open('/proc/%d/limits' % pid) as f:
        limits = f.read()
    assert re.search(r'Max core file size +0 +0', limits), limits
    conditions = agent.call('GET', '/info')[1]['conditions']
    if 'no_cgroups' not in conditions:
        with open('/proc/%d/cgroup' % pid) as f:
            assert '/u%d\n' % uid in f.read()
        for name in ('memory.max', 'memory.limit_in_bytes'):
            for path in glob.glob('/sys/fs/cgroup/**/u%d/%s' % (uid, name), recursive=True):
                with open(path) as f:
                    assert 256 << 20 < int(f.read()) < 1 << 30, path
    # all of them have a user, a network and a folder of their own
    uids = []
    for p in agent.qemus().values():
        try:
            uids.append(status_of(p)['Uid'])
        except (OSError, KeyError):    # that of an image that was made ends by itself
            pass
    assert len(set(uids)) == len(uids), uids


def test_launcher_and_agent():
    """The launcher alone is root; what speaks to network and guests has no rights."""
    found = {}
    for p in glob.glob('/proc/[0-9]*/status'):
        try:
            pid = int(p.split('/')[2])
            with open('/proc/%d/cmdline' % pid) as f:
                if agent.dir in f.read():
                    found[status_of(pid)['Name']] = status_of(pid)
        except OSError:
            continue
    for name, s in found.items():
        if name != 'hutch-priv':
            assert s['Uid'].split()[0] != '0' and int(s['CapEff'], 16) == 0, (name, s['Uid'])
    assert 'hutch-priv' in found and 'hutch-egress' in found, found.keys()


def test_internet():
    assert web(one, 'http://good.example/') == net.GOOD + ' good.example'
    assert web(one, 'http://%s:8080/' % net.BAD) == net.BAD + ' %s:8080' % net.BAD
    assert web(one, 'https://bad.example/') == net.BAD + ' bad.example'
    assert agent.run(one, 'python3 -c "import socket; print(socket.gethostbyname(\'www.good.example\'))"').strip() == net.GOOD
    assert agent.run(one, 'getent hosts nothere.example; echo $?').strip() == '2'


def test_never():
    """No packet to the host, its loopback, metadata, private ranges, a sibling."""
    global two
    two = agent.create(network={'internet': True, 'allow': net.PRIVATE + ['0.0.0.0/0', net.HOST, '127.0.0.0/8']})
    listener = subprocess.Popen(internet.inside(sys.executable, '-c', 'import http.server as h; h.ThreadingHTTPServer'
                                                '(("0.0.0.0", 8099), h.SimpleHTTPRequestHandler).serve_forever()'),
                                stderr=subprocess.DEVNULL)
    wait_for('a server on the host', lambda: '8099' in inside_host('ss', '-lnt'))
    agent.run(two, 'cd /; python3 -m http.server 8099 >/dev/null 2>&1 & '
                   'for i in $(seq 300); do bash -c ": </dev/tcp/127.0.0.1/8099" 2>/dev/null && break; sleep 0.2; done')
    peers = re.findall(r'peer ([0-9.]+)/32', inside_host('ip', '-o', '-4', 'addr'))
    assert peers
    internet.seen()
    for cid in (one, two):
        targets = [(net.HOST, 8099), ('10.0.2.2', 8099), ('10.0.2.2', 1080), ('10.0.2.2', 53), ('10.0.2.3', 80), ('127.0.0.1', 9)]
        targets += [(p, 8099) for p in peers[:2]] + [('100.127.0.1', 8099)] + [(p, 80) for p in net.PRIVATE]
        script = ('import socket, select, time\nall = {}\nfor a in %r:\n s = socket.socket(); s.setblocking(False)\n s.connect_ex(a)\n'
                  ' all[s] = a\ntime.sleep(2)\nfor s in select.select([], list(all), [], 0)[1]:\n'
                  ' if not s.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR): print(all[s])' % targets)
        got = agent.run(cid, "python3 -c '%s'" % script.replace("'", '"'))
        assert got == '', (cid == two, got)
        # with other protocols, sources and fragments
        agent.run(cid, 'ping -c1 -W1 10.9.9.9 >/dev/null 2>&1; ip addr add 10.0.2.77/24 dev eth0; '
                       'curl -s -m 1 --interface 10.0.2.77 http://%s/; ip addr del 10.0.2.77/24 dev eth0' % net.GOOD)
    listener.kill()
    listener.wait()
    went = set(internet.seen())
    assert not went & set(net.PRIVATE), went


def test_smtp():
    assert cut(one, net.MAIL, 25) and reaches(one, net.MAIL, 2525)
    status, got = patch(one, {'internet': True, 'smtp': True})
    assert status == 200, (status, got)
    assert reaches(one, net.MAIL, 25)
    assert patch(one, OPEN)[0] == 200
    assert cut(one, net.MAIL, 25)


def test_networks_by_address():
    assert patch(one, {'internet': True, 'deny': ['198.51.100.0/24'], 'allow': [net.GOOD]})[0] == 200
    assert reaches(one, net.GOOD, 8080) and cut(one, net.BAD, 8080)
    assert patch(one, {'internet': False, 'allow': [net.BAD + '/32']})[0] == 200
    assert reaches(one, net.BAD, 8080) and cut(one, net.GOOD, 8080)
    assert patch(one, SHUT)[0] == 200
    quiet()
    assert cut(one, net.GOOD, 80) and shut(one, 'http://good.example/')
    assert internet.seen() == {}


def asked(cid, name, behind):
    """The code of the answer to a question for a name's address, with a record and more bytes behind it."""
    q = bytes((1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1)) + b''.join(bytes((len(x),)) + x.encode() for x in name.split('.')) + bytes((0, 0, 1, 0, 1))
    return agent.run(cid, "python3 -c \"import socket; s = socket.socket(2, 2); s.settimeout(60); s.connect(('10.0.2.3', 53)); "
                     "s.send(bytes.fromhex('%s')); print(s.recv(512)[3] & 15)\"" % (q + behind).hex()).strip()


def test_names():
    assert patch(one, {'internet': False, 'allow': ['*.good.example', 'inside.example', 'loop.example', 'self.example']})[0] == 200
    assert web(one, 'http://www.good.example/') == net.GOOD + ' www.good.example'
    assert web(one, 'https://www.good.example/') == net.GOOD + ' www.good.example'
    # the name counts, not the address that the guest believes in; neither may lead inside
    assert shut(one, 'http://bad.example/', '--resolve bad.example:80:' + net.GOOD)
    assert shut(one, 'https://bad.example/', '--resolve bad.example:443:' + net.GOOD)
    assert web(one, 'http://www.good.example/', '--resolve www.good.example:80:' + net.BAD) == net.GOOD + ' www.good.example'
    assert shut(one, 'http://good.example/', '--resolve good.example:80:' + net.GOOD)   # *.name is not name
    for name in ('inside.example', 'loop.example', 'self.example'):
        assert shut(one, 'http://%s/' % name, '--resolve %s:80:%s' % (name, net.GOOD)), name
    assert cut(one, net.GOOD, 8080)
    # what stands behind a question goes nowhere
    assert asked(one, 'www.good.example', b'\0\0\x29\x10\0\0\0\0\0\0\x09\xfd\xe9\0\x05bytes' + b'more') == '0'
    # names that are not allowed are not told, either
    assert agent.run(one, 'getent hosts bad.example; echo $?').strip() == '2'
    assert patch(one, {'internet': True, 'deny': ['bad.example']})[0] == 200
    assert web(one, 'http://good.example/') == net.GOOD + ' good.example'
    assert shut(one, 'http://bad.example/', '--resolve bad.example:80:' + net.BAD)
    assert shut(one, 'https://bad.example/', '--resolve bad.example:443:' + net.BAD)
    assert web(one, 'http://%s:8080/' % net.BAD) != ''
    assert not set(internet.seen()) & set(net.PRIVATE)


def open_stream(cid, url):
    agent.run(cid, 'rm -f /root/got; (curl -skN -m 900 %s >/root/got 2>/dev/null; echo $? >/root/ended) >/dev/null 2>&1 &' % url)
    wait_for('the first bytes', lambda: agent.run(cid, 'test -s /root/got && echo yes'))


def got(cid):
    return int(agent.run(cid, 'stat -c %s /root/got'))


def goes_on(cid):
    a = got(cid)
    wait_for('more of the stream', lambda: got(cid) > a)


def ends(cid):
    """A stream that says something every 100 ms says nothing for two seconds; what was on its way may still come."""
    def still():
        a = got(cid)
        time.sleep(2)
        return got(cid) == a
    wait_for('the end of the stream', still, 60)


def test_changes_reach_open_connections():
    for policy, url, then in (
            (OPEN, 'http://%s/slow' % net.GOOD, SHUT),
            (OPEN, 'https://%s/slow' % net.GOOD, {'internet': True, 'deny': [net.GOOD]}),
            (OPEN, 'http://%s/slow' % net.BAD, {'internet': True, 'deny': ['bad.example']}),
            ({'internet': True, 'deny': ['bad.example']}, 'http://good.example/slow', SHUT),
            ({'internet': False, 'allow': ['good.example']}, 'https://good.example/slow', {'internet': False, 'allow': ['x.example']})):
        assert patch(one, policy)[0] == 200
        open_stream(one, url)
        goes_on(one)
        assert patch(one, then)[0] == 200
        ends(one)
        agent.run(one, 'pkill curl; true')
    # and leave the others alone
    assert patch(one, OPEN)[0] == 200
    open_stream(one, 'http://%s/slow' % net.GOOD)
    assert patch(one, {'internet': True, 'deny': [net.BAD], 'smtp': True})[0] == 200
    goes_on(one)
    agent.run(one, 'pkill curl; true')
    assert patch(one, OPEN)[0] == 200


def test_bad_policies():
    before = web(one, 'http://good.example/')
    for bad in ({'allow': ['nonsense!']}, {'allow': ['10.0.0.0/33']}, {'deny': ['*']}, {'internet': 'yes'}, {'allow': {}}, [],
                {'allow': ['1.2.3.4'] * 257}, {'allow': ['1.2.3']}, {'deny': ['a..b']}, {'allow': [7]}, {'allow': ['x' * 300]}):
        status, got = patch(one, bad)
        assert status == 400 and 'network' in got['error']['message'], (bad, status, got)
        assert agent.put(net_id(), network=bad)[0] == 400
    assert web(one, 'http://good.example/') == before
    assert patch(one, {'internet': True, 'allow': ['1.2.%d.0/24' % i for i in range(256)],
                       'deny': ['n%d.example' % i for i in range(256)]})[0] == 200
    assert patch(one, OPEN)[0] == 200
    assert agent.call('PATCH', '/capsules/' + net_id(), {'network': {}}, ['hutch-epoch: 1'])[0] == 404


def net_id():
    from watch_agent import new_id
    return new_id()


def test_adopted_networks():
    """The agent and its launcher killed: what was open stays, what was shut, too; names work again."""
    assert patch(one, {'internet': True, 'deny': [net.BAD]})[0] == 200
    open_stream(one, 'http://%s/slow' % net.GOOD)
    agent.stop(signal.SIGKILL)
    time.sleep(0.5)
    agent.start()
    goes_on(one)
    agent.run(one, 'pkill curl; true')
    assert web(one, 'http://good.example/') == net.GOOD + ' good.example'
    assert cut(one, net.BAD, 8080)
    launcher = [p for p in glob.glob('/proc/[0-9]*/status') if name_of(p) == 'hutch-priv' and ours(p)]
    assert launcher
    kill(int(launcher[0].split('/')[2]))
    agent.proc.wait(60)
    agent.start()
    assert web(one, 'http://good.example/') == net.GOOD + ' good.example'
    egress = [p for p in glob.glob('/proc/[0-9]*/status') if name_of(p) == 'hutch-egress' and ours(p)]
    kill(int(egress[0].split('/')[2]))
    wait_for('names again', lambda: web(one, 'http://good.example/') == net.GOOD + ' good.example')


def name_of(path):
    try:
        with open(path) as f:
            return f.readline().split()[1]
    except OSError:
        return ''


def ours(path):
    try:
        with open(os.path.dirname(path) + '/cmdline') as f:
            return agent.dir in f.read()
    except OSError:
        return False


def test_bandwidth():
    agent.stop()
    agent.start(network_mb_per_sec=4)
    cid = agent.create(network=OPEN)
    began = time.time()
    n = int(agent.run(cid, 'timeout 5 curl -s http://%s:8080/bulk | wc -c' % net.GOOD))
    rate = n / (time.time() - began) / (1 << 20)
    print('# 4 MB/s asked for: %.1f MB/s' % rate)
    assert 0.01 < rate < 5.5, rate    # the lower end is the machine's load
    assert agent.delete(cid)[0] == 204
    agent.stop()
    agent.start(network_mb_per_sec=200)


def size_of(path):
    try:
        return os.path.getsize(path) if os.path.isfile(path) else 0
    except OSError:    # of a machine that ended
        return 0


def test_floods():
    """Row 40: a capsule that forks, fills its disk, floods its console and scans: its neighbour goes on."""
    noisy = agent.create(network=OPEN)
    pid = agent.vm_of(noisy)
    quiet = []
    for _ in range(5):
        began = time.time()
        agent.run(one, 'true')
        quiet.append(time.time() - began)
    internet.seen()
    scan = ('import socket\nfor n in range(1500):\n s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n'
            ' for p in ("10.9.%d.%d", "192.168.%d.%d", "172.16.%d.%d"): s.sendto(b"x", (p % (n >> 8, n & 255), 99))')
    agent.run(noisy, "(python3 -c '%s'; yes >/dev/hvc0 & dd if=/dev/zero of=/root/full bs=1M count=1500 & "
                     "b() { b | b & }; ulimit -u 400; for i in $(seq 300); do sleep 100 & done) >/dev/null 2>&1 & sleep 0.1; true" % scan)
    loud = []
    end = time.time() + 8
    while time.time() < end:
        began = time.time()
        assert agent.run(one, 'echo here') == 'here\n'
        loud.append(time.time() - began)
    print('# neighbour: %.0f ms quiet, %.0f ms median and %.0f ms at most beside the flood'
          % (1000 * sorted(quiet)[2], 1000 * sorted(loud)[len(loud) // 2], 1000 * max(loud)))
    assert max(loud) < 30, max(loud)    # a neighbour of one that took the host would wait for its end
    assert os.path.exists('/proc/%d' % pid)
    logs = sum(size_of(p) for p in glob.glob(agent.state + '/vm/*/*') if 'qcow2' not in p)
    assert logs < 5 << 20, logs
    threads = len(os.listdir('/proc/%d/task' % pid))
    assert threads < 256, threads
    assert agent.delete(noisy)[0] == 204
    went = internet.seen()
    assert not [a for a in went if re.match(r'10\.|192\.168\.|172\.16\.|169\.254\.', a)], went


def test_nothing_left():
    """After destroy, and after everything was killed at once."""
    for cid in agent.inventory():
        assert agent.delete(cid)[0] == 204
    cid = agent.create(network={'internet': True, 'deny': ['bad.example']})
    pids = list(agent.qemus().values())
    assert pids and links()
    wait_for('a group of each, or none', lambda: not groups() or len(groups()) >= len(agent.qemus()))
    agent.stop(signal.SIGKILL)
    time.sleep(0.5)
    agent.kill_all()    # one may have been started meanwhile
    wait_for('all links to go', lambda: not links())
    agent.start(pool_size=0)
    assert agent.delete(cid)[0] == 204
    agent.stop(signal.SIGTERM)
    wait_for('no process', lambda: not agent.qemus())
    agent.start()
    wait_for('no groups', lambda: not groups())
    wait_for('no policy files', lambda: not os.listdir(agent.state + '/network'))
    assert not links() or len(links()) <= 1, links()    # one network is kept ready
    assert os.listdir(agent.state + '/vm') == []
    agent.stop(signal.SIGTERM)
    wait_for('all links to go', lambda: not links())


def test_uncaged():
    """A QEMU that leaves out its system call filter is killed before its guest gets anything."""
    if agent.proc.poll() is None:    # what came before failed
        agent.stop()
    os.makedirs(DIR + '/fake/bin', exist_ok=True)
    with open(DIR + '/fake/bin/qemu', 'w') as f:
        f.write('#!/bin/bash\nwords=()\nwhile [ $# -gt 0 ]; do case $1 in -sandbox) shift ;; *) words+=("$1") ;; esac; shift; done\n'
                'exec /usr/bin/qemu-system-x86_64 "${words[@]}"\n')
    for path in ('/fake', '/fake/bin', '/fake/bin/qemu'):
        os.chmod(DIR + path, 0o755)
    before = set(agent.qemus().values())
    agent.start(qemu=DIR + '/fake/bin/qemu', pool_size=0)
    status, got = agent.put(net_id(), network=OPEN)
    assert status == 502 and 'system call filter' in got['error']['message'], (status, got)
    wait_for('it to be gone', lambda: set(agent.qemus().values()) <= before)
    agent.stop()
    agent.conf['qemu'] = '/usr/bin/qemu-system-x86_64'


def test_hostcheck():
    """Every point has its reason, every bad one a next step; nothing is left of what was tried."""
    if agent.proc.poll() is None:
        agent.stop()
    agent.kill_all()
    wait_for('the links of others to go', lambda: not links())
    before = inside_host('nft', '-s', 'list', 'ruleset'), links()
    r = subprocess.run([DIR + '/agent', '-c', agent.dir + '/hutch.conf', '-J'], stdout=subprocess.PIPE, text=True)
    got = json.loads(r.stdout)
    points = {p['name']: p for p in got['points']}
    assert {'kvm', 'cgroup', 'network', 'landlock', 'seccomp', 'user_ns', 'uids', 'memory', 'disk', 'swap', 'core',
            'processor'} <= set(points), points.keys()
    assert all(p['reason'] and (p['level'] == 'ok' or p['next']) for p in points.values()), points
    worst = max(['ok', 'warn', 'fail'].index(p['level']) for p in points.values())
    assert r.returncode == [0, 3, 4][worst] and got['level'] == ['ok', 'warn', 'fail'][worst], (r.returncode, got['level'])
    assert points['network']['level'] == 'ok' and (inside_host('nft', '-s', 'list', 'ruleset'), links()) == before
    taken = subprocess.run([DIR + '/agent', '-c', conf_with(uid_first=1000, uid_count=64000), '-J'], stdout=subprocess.PIPE,
                           text=True)
    bad = {p['name']: p for p in json.loads(taken.stdout)['points']}['uids']
    assert taken.returncode == 4 and bad['level'] == 'fail' and 'belongs to' in bad['reason'], bad
    assert not glob.glob('/sys/fs/cgroup/**/hutch-check', recursive=True)


def conf_with(**more):
    path = DIR + '/other.conf'
    with open(path, 'w') as f:
        f.write('agent {\n%s}\n' % ''.join('\t%s = %s\n' % (k, v if isinstance(v, int) else '"%s"' % v)
                                          for k, v in dict(agent.conf, **more).items()))
    return path


def main():
    try:
        agent.start()
        return tests(sys.argv[3:])
    finally:
        mine = groups() if os.path.exists(agent.state) else []
        agent.end()
        for path in mine + sorted({os.path.dirname(p) for p in mine}):
            subprocess.run(['rmdir', path], stderr=subprocess.DEVNULL)
        internet.end()
        shutil.rmtree(DIR, ignore_errors=True)


def tests(only):
    passed, failed = 0, 0
    if 'network_user_mode' in agent.call('GET', '/info')[1]['conditions']:
        skip('no network namespaces with tap and nftables here')
    for name, test in [(n[5:], t) for n, t in globals().items() if n.startswith('test_')]:
        if only and name not in only and name != 'cage':
            continue
        try:
            began = time.time()
            test()
            print('ok %s (%.1f s)' % (name, time.time() - began), flush=True)
            passed += 1
        except Exception as e:    # noqa: BLE001 - a test's failure is a line
            import traceback
            print('not ok %s: %s' % (name, str(e)[:1500] or traceback.format_exc(limit=3)), flush=True)
            print('# ' + traceback.format_exc(limit=4).replace('\n', '\n# '), flush=True)
            failed += 1
    if failed:
        print('# ' + agent.log_text()[-3000:].replace('\n', '\n# '))
    print('%d passed, %d failed, 0 skipped' % (passed, failed))
    return failed != 0


if __name__ == '__main__':
    sys.exit(main())
