"""engine_lib.py - a host agent of one's own, under /tmp, for tests with real virtual machines.

Agent(binary, images): start, stop, call its control API with curl, run commands in guests. main(agent, globals(), name): runs
the functions test_… of a file, or those that the command line names; prints "ok name" or "not ok name: why", at last
"N passed, N failed, N skipped".
"""
import base64, glob, json, os, shutil, signal, struct, subprocess, sys, tempfile, time, traceback, uuid

TOKEN = 'token-of-the-test'


def new_id():
    n, digits = uuid.uuid4().int, ''
    for _ in range(25):
        n, r = divmod(n, 36)
        digits = '0123456789abcdefghijklmnopqrstuvwxyz'[r] + digits
    return 'cl-' + digits


def wait_for(what, test, seconds=180):
    """What test says as soon as it is true. The deadline is for what never comes: emulated machines on a busy host are slow."""
    end = time.monotonic() + seconds
    while True:
        got = test()
        if got:
            return got
        if time.monotonic() > end:
            break
        time.sleep(0.1)
    raise AssertionError('waited %d s for %s' % (seconds, what))


def kill(pid, sig=signal.SIGKILL):
    try:
        os.kill(pid, sig)
    except ProcessLookupError:
        pass


class Agent:
    def __init__(self, binary, images, uid_first, prefix='hutch-engine-', **conf):
        self.binary, self.images = binary, images
        self.dir = tempfile.mkdtemp(prefix=prefix)
        self.state = self.dir + '/state'
        self.sock = self.state + '/a.sock'
        self.process = None
        self.memory = 256
        self.extra = ''     # further text of its configuration
        self.conf = dict(socket=self.sock, state_dir=self.state, image_dir=images, accel='tcg', uid_first=uid_first,
                         uid_count=24, pool_size=0, pool_waiting=0, min_free_disk_gb=0, min_free_disk_percent=0,
                         min_free_memory_percent=1, network_mode='user',
                         boot_timeout_sec=300)     # emulated, beside others that take all processors
        self.conf.update(conf)
        self.conf = {k: v for k, v in self.conf.items() if v is not None}     # None: the program's own default

    def configure(self, **more):
        conf = dict(self.conf, **more)
        with open(self.dir + '/hutch.conf', 'w') as f:
            f.write('agent {\n%s}\n' % ''.join('\t%s = %s\n' % (k, v if isinstance(v, int) else '"%s"' % v)
                                              for k, v in conf.items()) + self.extra)

    def start(self, wait=120, env=None, **more):
        self.configure(**more)
        log = open(self.dir + '/log', 'ab')
        self.process = subprocess.Popen([self.binary, '-c', self.dir + '/hutch.conf'], stdin=subprocess.DEVNULL,
                                        stdout=log, stderr=log, env=dict(os.environ, **(env or {})))
        end = time.monotonic() + wait
        while time.monotonic() < end and self.process.poll() is None:
            try:
                if self.call('GET', '/info')[0] == 200:
                    return
            except (OSError, ValueError):
                pass
            time.sleep(0.1)
        raise AssertionError('the agent does not start')

    def stop(self, sig=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(sig)
            self.process.wait(60)

    def restart(self, sig=signal.SIGKILL, **more):
        self.stop(sig)
        self.start(**more)

    def log(self):
        with open(self.dir + '/log', errors='replace') as f:
            return f.read()

    def call(self, method, path, body=None, headers=(), timeout=120, head=False):
        """(status, answer): JSON when it is, else bytes. head: its header lines go to the file head."""
        cmd = ['curl', '-sS', '--http2-prior-knowledge', '--unix-socket', self.sock, '-X', method, '-m', str(timeout),
               '-w', '\n%{http_code}', 'http://agent/agent/v1' + path]
        if body is not None:
            cmd += ['--data-binary', '@-']
            body = body if isinstance(body, bytes) else json.dumps(body).encode()
        for h in headers:
            cmd += ['-H', h]
        if head:
            cmd += ['-D', self.dir + '/head']
        r = subprocess.run(cmd, input=body or b'', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if r.returncode:
            raise OSError(r.stderr.decode())
        data, _, status = r.stdout.rpartition(b'\n')
        try:
            return int(status), json.loads(data)
        except ValueError:
            return int(status), data

    @staticmethod
    def spec(epoch=1, **more):
        spec = dict(epoch=epoch, template='minimal', template_version=1, vcpus=1, memory_mb=256, hostname='hutch',
                    user='root', workdir='/root', access_token=TOKEN, envs={'GREETING': 'hello'})
        spec.update(more)
        return spec

    def put(self, cid, epoch=1, **more):
        return self.call('PUT', '/capsules/' + cid, self.spec(epoch, **dict(dict(memory_mb=self.memory), **more)),
                         ['hutch-op: test', 'hutch-epoch: %d' % epoch])

    def post(self, cid, what, epoch=1, body=None, op='test'):
        return self.call('POST', '/capsules/%s/%s' % (cid, what), body or {},
                         ['hutch-op: ' + op, 'hutch-epoch: %d' % epoch])

    def delete(self, cid, epoch=9):
        return self.call('DELETE', '/capsules/' + cid, None, ['hutch-epoch: %d' % epoch])

    def get(self, cid):
        return self.call('GET', '/capsules/' + cid)[1]

    def run(self, cid, command, token=TOKEN):
        """The command's output; through the bridge, Connect framing."""
        message = json.dumps({'process': {'cmd': '/bin/sh', 'args': ['-c', command]}, 'stdin': False}).encode()
        status, data = self.call('POST', '/capsules/%s/guest/process.Process/Start' % cid,
                                 b'\0' + struct.pack('>I', len(message)) + message,
                                 ['content-type: application/connect+json', 'x-access-token: ' + token])
        if status != 200 or isinstance(data, dict):
            raise AssertionError('exec: %d %r' % (status, data))
        out, ended = b'', False
        while data:
            n = struct.unpack('>I', data[1:5])[0]
            m = json.loads(data[5:5 + n])
            data = data[5 + n:]
            event = m.get('event', {})
            out += base64.b64decode(event.get('data', {}).get('stdout', ''))
            ended = ended or 'end' in event
            assert 'error' not in m, m
        assert ended, 'no end event'
        return out.decode()

    def inventory(self):
        return {c['id']: c for c in self.call('GET', '/capsules')[1]['capsules']}

    def pools(self):
        return self.call('GET', '/info')[1]['pools']

    def artifacts(self):
        return {os.path.basename(p) for p in glob.glob(self.state + '/artifacts/' + '[0-9a-f]' * 64)}

    def manifest(self, artifact):
        with open('%s/artifacts/%s/manifest.json' % (self.state, artifact)) as f:
            return json.load(f)

    def qemus(self):
        """{vm name: pid} of this agent's processes."""
        with open(self.state + '/instance') as f:
            mine = 'hutch-%s-' % f.read().strip()
        found = {}
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                with open(path, 'rb') as f:
                    words = f.read().split(b'\0')
            except OSError:
                continue
            for a, b in zip(words, words[1:]):
                if a == b'-name' and b.decode().startswith(mine):
                    found[b.decode().split('-', 2)[2]] = int(path.split('/')[2])
        return found

    def vm_of(self, cid):
        """The pid of the capsule's QEMU, as the journal says: others may be images in the making, or pools'."""
        pid = None
        with open(self.state + '/journal', errors='replace') as f:
            for line in f:
                if line.endswith('\n') and cid in line:
                    pid = json.loads(line[9:]).get('pid') or pid
        return pid

    def kill_all(self):
        """kill -9 of every machine that is there: one may end by itself meanwhile."""
        for pid in self.qemus().values():
            kill(pid)

    def end(self, keep_log=None, keep=False):
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        if os.path.exists(self.state + '/instance'):
            self.kill_all()
        if keep_log:
            shutil.copy(self.dir + '/log', keep_log)
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)


class Skip(Exception):
    """Raised by a test that cannot be here: why."""


def attempt(agent, test):
    """None, or why it is not as it should be."""
    try:
        if agent.process.poll() is not None:
            agent.start()
        test()
        return None
    except (AssertionError, OSError, KeyError, IndexError, TypeError, ValueError, SystemExit, subprocess.SubprocessError) as e:
        trace = traceback.extract_tb(e.__traceback__)
        line = trace[-1 if len(trace) < 3 else 1]
        if agent.process.poll() is None:
            for cid in agent.inventory():
                agent.delete(cid)
        return 'line %d: %s: %s' % (line.lineno, type(e).__name__, e)


def main(agent, tests, name):
    begin, only, log = time.time(), sys.argv[3:], '/tmp/hutch-engine-%s.log' % name
    passed = failed = skipped = 0
    agent.start()
    try:
        for each, test in list(tests.items()):
            if not each.startswith('test_') or (only and each[5:] not in only):
                continue
            at = time.time()
            try:
                said = attempt(agent, test)
            except Skip as why:
                skipped += 1
                print('skipped %s: %s' % (each[5:], why), flush=True)
                continue
            passed, failed = passed + (not said), failed + bool(said)
            print('not ok %s: %s' % (each[5:], said) if said else 'ok %s (%.1f s)' % (each[5:], time.time() - at), flush=True)
        if any(word in agent.log() for word in ('Sanitizer', 'runtime error:', 'talloc:')):
            print('not ok sanitizers: see the log')
            failed += 1
    except KeyboardInterrupt:
        failed += 1
    finally:
        agent.end(log if failed else None)
    print('%s# %.0f s' % ('# log: %s\n' % log if failed else '', time.time() - begin))
    print('%d passed, %d failed, %d skipped' % (passed, failed, skipped))
    return 1 if failed else 0
