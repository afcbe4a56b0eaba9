"""watch_agent - engine_lib's agent for tests that look at what it watches: streams that are held, the journal, its log."""
import json, struct, subprocess, time

import engine_lib
from engine_lib import TOKEN, kill, new_id, wait_for  # noqa: F401  (for who imports this)


class Agent(engine_lib.Agent):
    def __init__(self, program, images, prefix, uid_first, uid_count=12, **conf):
        own = dict(pool_size=1, pool_waiting=None, network_mode=None, user='')
        super().__init__(program, images, uid_first, prefix, uid_count=uid_count, **dict(own, **conf))

    def start(self, wait=120, env=None, **more):
        """Seconds until it answered. What is said here stays said."""
        self.conf.update(more)
        began = time.time()
        super().start(wait, env)
        return time.time() - began

    @property
    def proc(self):
        return self.process

    @property
    def program(self):
        return self.binary

    def log_text(self):
        return self.log()

    def create(self, **more):
        cid = new_id()
        status, got = self.put(cid, **more)
        assert status == 200, (status, got, self.log()[-1500:])
        return cid

    def verb(self, cid, verb, body=None, epoch=1):
        return self.post(cid, verb, epoch, body, op=verb)

    def delete(self, cid, epoch=1):
        return super().delete(cid, epoch)

    def state_of(self, cid):
        got = self.call('GET', '/capsules/' + cid)[1]
        return got.get('state') if isinstance(got, dict) else None

    def start_process(self, cid, command, headers=(), wait=True, pty=False):
        """A curl that holds the stream of a command."""
        process = {'process': {'cmd': '/bin/sh', 'args': ['-c', command]}, 'stdin': False}
        if pty:
            process['pty'] = {'size': {'cols': 80, 'rows': 24}}
        message = json.dumps(process).encode()
        cmd = ['curl', '-sSN', '--http2-prior-knowledge', '--unix-socket', self.sock, '-m', '600', '-X', 'POST',
               '-H', 'content-type: application/connect+json', '-H', 'x-access-token: ' + TOKEN, '--data-binary', '@-',
               'http://agent/agent/v1/capsules/%s/guest/process.Process/Start' % cid]
        for h in headers:
            cmd += ['-H', h]
        p = subprocess.Popen(cmd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdin.write(b'\0' + struct.pack('>I', len(message)) + message)
        p.stdin.close()
        p.stdin = None
        return p
