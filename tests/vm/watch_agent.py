"""watch_agent - a host agent of one's own: its configuration, its control API, its processes."""
import base64, glob, json, os, shutil, signal, struct, subprocess, tempfile, time, uuid

TOKEN = 'token-of-the-test'


def new_id():
    n, digits = uuid.uuid4().int, ''
    for _ in range(25):
        n, r = divmod(n, 36)
        digits = '0123456789abcdefghijklmnopqrstuvwxyz'[r] + digits
    return 'cl-' + digits


def wait_for(what, test, seconds=60):
    end = time.time() + seconds
    while time.time() < end:
        got = test()
        if got:
            return got
        time.sleep(0.1)
    raise AssertionError('waited %d s for %s' % (seconds, what))


class Agent:
    def __init__(self, program, images, prefix, uid_first, uid_count=12, **conf):
        self.program, self.images = program, images
        self.dir = tempfile.mkdtemp(prefix=prefix)
        self.state = self.dir + '/state'
        self.sock = self.state + '/a.sock'
        self.conf = dict(socket=self.sock, state_dir=self.state, image_dir=images, accel='tcg', uid_first=uid_first,
                         uid_count=uid_count, pool_size=1, min_free_disk_gb=0, min_free_disk_percent=0,
                         min_free_memory_percent=1, user='')
        self.conf.update(conf)
        self.proc = None

    def start(self, wait=30, env=None, **more):
        """Seconds until it answered."""
        self.conf.update(more)
        with open(self.dir + '/hutch.conf', 'w') as f:
            f.write('agent {\n%s}\n' % ''.join('\t%s = %s\n' % (k, v if isinstance(v, int) else '"%s"' % v)
                                              for k, v in self.conf.items()))
        log = open(self.dir + '/log', 'ab')
        began = time.time()
        self.proc = subprocess.Popen([self.program, '-c', self.dir + '/hutch.conf'], stdin=subprocess.DEVNULL, stdout=log,
                                     stderr=log, env=dict(os.environ, **(env or {})))
        while time.time() < began + wait and self.proc.poll() is None:
            try:
                if self.call('GET', '/info')[0] == 200:
                    return time.time() - began
            except (OSError, ValueError):
                pass
            time.sleep(0.05)
        raise AssertionError('the agent does not start: ' + self.log_text()[-2000:])

    def stop(self, sig=signal.SIGTERM):
        self.proc.send_signal(sig)
        self.proc.wait(20)

    def log_text(self):
        with open(self.dir + '/log', errors='replace') as f:
            return f.read()

    def call(self, method, path, body=None, headers=(), timeout=90, head=False):
        """(status, answer): JSON when it is, else text."""
        cmd = ['curl', '-sS', '--http2-prior-knowledge', '--unix-socket', self.sock, '-X', method, '-m', str(timeout),
               '-w', '\n%{http_code}', 'http://agent/agent/v1' + path]
        for h in headers:
            cmd += ['-H', h]
        if head:
            cmd += ['-D', self.dir + '/head']
        if body is not None:
            cmd += ['--data-binary', '@-']
            if not isinstance(body, bytes):
                body = json.dumps(body).encode()
        r = subprocess.run(cmd, input=body or b'', stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if r.returncode:
            raise OSError(r.stderr.decode())
        data, _, status = r.stdout.rpartition(b'\n')
        try:
            return int(status), json.loads(data)
        except ValueError:
            return int(status), data

    def put(self, cid, epoch=1, memory_mb=256, **more):
        spec = dict(epoch=epoch, template='minimal', vcpus=1, memory_mb=memory_mb, hostname='hutch', user='root',
                    workdir='/root', access_token=TOKEN, envs={})
        spec.update(more)
        return self.call('PUT', '/capsules/' + cid, spec, ['hutch-op: test', 'hutch-epoch: %d' % epoch])

    def create(self, **more):
        cid = new_id()
        status, got = self.put(cid, **more)
        assert status == 200, (status, got, self.log_text()[-1500:])
        return cid

    def verb(self, cid, verb, body=None, epoch=1):
        return self.call('POST', '/capsules/%s/%s' % (cid, verb), body or {}, ['hutch-op: ' + verb, 'hutch-epoch: %d' % epoch])

    def delete(self, cid, epoch=1):
        return self.call('DELETE', '/capsules/' + cid, None, ['hutch-epoch: %d' % epoch])

    def state_of(self, cid):
        got = self.call('GET', '/capsules/' + cid)[1]
        return got.get('state') if isinstance(got, dict) else None

    def start_process(self, cid, command, headers=(), wait=True, pty=False):
        """A curl that holds the stream of a command."""
        process = {'process': {'cmd': '/bin/sh', 'args': ['-c', command]}, 'stdin': False}
        if pty:
            process['pty'] = {'size': {'cols': 80, 'rows': 24}}
        message = json.dumps(process).encode()
        cmd = ['curl', '-sSN', '--http2-prior-knowledge', '--unix-socket', self.sock, '-m', '90', '-X', 'POST',
               '-H', 'content-type: application/connect+json', '-H', 'x-access-token: ' + TOKEN, '--data-binary', '@-',
               'http://agent/agent/v1/capsules/%s/guest/process.Process/Start' % cid]
        for h in headers:
            cmd += ['-H', h]
        p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b'\0' + struct.pack('>I', len(message)) + message)
        p.stdin.close()
        p.stdin = None
        return p

    def run(self, cid, command):
        data, _ = self.start_process(cid, command).communicate()
        out, ended = b'', False
        if data[:1] == b'{':
            raise AssertionError('exec: %r' % data)
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

    def instance(self):
        with open(self.state + '/instance') as f:
            return f.read().strip()

    def qemus(self):
        """{vm name: pid} of this agent's processes."""
        found = {}
        for path in glob.glob('/proc/[0-9]*/cmdline'):
            try:
                with open(path, 'rb') as f:
                    words = f.read().split(b'\0')
            except OSError:
                continue
            for a, b in zip(words, words[1:]):
                if a == b'-name' and b.decode().startswith('hutch-%s-' % self.instance()):
                    found[b.decode().split('-', 2)[2]] = int(path.split('/')[2])
        return found

    def vm_of(self, cid):
        """The pid of the capsule's QEMU, as the journal says."""
        pid = None
        with open(self.state + '/journal', errors='replace') as f:
            for line in f:
                record = json.loads(line[9:])
                if record.get('id') == cid and record.get('pid'):
                    pid = record['pid']
        return pid

    def end(self, keep=False):
        if self.proc and self.proc.poll() is None:
            self.proc.kill()
            self.proc.wait()
        if os.path.exists(self.state + '/instance'):
            for pid in self.qemus().values():
                try:
                    os.kill(pid, signal.SIGKILL)
                except OSError:
                    pass
        if not keep:
            shutil.rmtree(self.dir, ignore_errors=True)
