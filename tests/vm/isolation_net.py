#!/usr/bin/env python3
"""isolation_net - a small internet for tests: a network namespace for the host agent ("host"), and one with name
server, web servers and everything else ("net").

usage: isolation_net.py serve CERT KEY    (inside "net": runs the servers; each line on stdin is a question, one JSON line
the answer: the addresses that packets went to since the last time)
"""
import json, os, socket, ssl, struct, subprocess, sys, threading, time

HOST, GATEWAY, DNS = '203.0.113.1', '203.0.113.254', '203.0.113.53'
GOOD, BAD, MAIL = '198.51.100.10', '198.51.100.20', '198.51.100.25'
PRIVATE = ['10.9.9.9', '172.16.9.9', '192.168.9.9', '169.254.169.254', '100.64.9.9']
NAMES = {'good.example': GOOD, 'www.good.example': GOOD, 'bad.example': BAD, 'inside.example': '192.168.9.9',
         'metadata.example': '169.254.169.254', 'self.example': HOST, 'loop.example': '127.0.0.1'}
BULK = 128 << 20


class Internet:
    """The two namespaces, as the parent sees them."""

    def __init__(self, tag, folder):
        self.host, self.net = 'iso%s-host' % tag, 'iso%s-net' % tag
        sh = lambda line: subprocess.run(line.split(), check=True)
        self.remove()
        sh('ip netns add ' + self.host)
        sh('ip netns add ' + self.net)
        sh('ip link add up%s netns %s type veth peer name in%s netns %s' % (tag, self.host, tag, self.net))
        sh('ip -n %s link set lo up' % self.host)
        sh('ip -n %s link set lo up' % self.net)
        sh('ip -n %s addr add %s/24 dev up%s' % (self.host, HOST, tag))
        sh('ip -n %s link set up%s up' % (self.host, tag))
        for address in [GATEWAY + '/24', DNS + '/24', GOOD + '/32', BAD + '/32', MAIL + '/32'] + [p + '/32' for p in PRIVATE]:
            sh('ip -n %s addr add %s dev in%s' % (self.net, address, tag))
        sh('ip -n %s link set in%s up' % (self.net, tag))
        sh('ip -n %s route add default via %s' % (self.host, GATEWAY))
        # more specific than what a machine with a default route has: so that a leak would really arrive
        for p in PRIVATE:
            sh('ip -n %s route add %s via %s' % (self.host, p, GATEWAY))
        cert, key = folder + '/cert', folder + '/key'
        subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes',
                        '-days', '2', '-subj', '/CN=test', '-keyout', key, '-out', cert], check=True,
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.server = subprocess.Popen(['nsenter', '--net=/run/netns/' + self.net, sys.executable, __file__, 'serve', cert, key],
                                       stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.server.stdout.readline().strip() == 'ready'

    def inside(self, *command):
        return ['nsenter', '--net=/run/netns/' + self.host] + list(command)

    def seen(self):
        """{destination: packets} that came out of the host since the last call."""
        time.sleep(0.2)
        self.server.stdin.write('\n')
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def remove(self):
        for name in (self.host, self.net):
            subprocess.run(['ip', 'netns', 'del', name], stderr=subprocess.DEVNULL)

    def end(self):
        self.server.kill()
        self.server.wait()
        self.remove()


# ---- inside ----

def answer(query):
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1:at + 1 + query[at]].decode())
        at += 1 + query[at]
    name, end = '.'.join(labels).lower(), at + 5
    if len(query) != end or any(query[6:12]):
        raise ValueError('more than a question')
    kind = struct.unpack('>H', query[at + 1:at + 3])[0]
    address = NAMES.get(name) if kind == 1 else None
    found = name in NAMES
    head = query[:2] + struct.pack('>HHHHH', 0x8180 if found else 0x8183, 1, 1 if address else 0, 0, 0)
    record = b'\xc0\x0c' + struct.pack('>HHIH', 1, 1, 5, 4) + socket.inet_aton(address) if address else b''
    return head + query[12:end] + record


def dns_udp():
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.bind((DNS, 53))
    while True:
        query, peer = s.recvfrom(4096)
        try:
            s.sendto(answer(query), peer)
        except (IndexError, ValueError):
            pass


def dns_tcp(c):
    n = struct.unpack('>H', c.recv(2, socket.MSG_WAITALL))[0]
    a = answer(c.recv(n, socket.MSG_WAITALL))
    c.sendall(struct.pack('>H', len(a)) + a)


def web(c):
    """/slow: a line every 100 ms for ever; /bulk: many bytes; POST: takes all; else: who we are, what Host said."""
    head = b''
    while b'\r\n\r\n' not in head:
        got = c.recv(4096)
        if not got:
            return
        head += got
    line, *fields = head.split(b'\r\n\r\n')[0].decode().split('\r\n')
    host = [f.split(':', 1)[1].strip() for f in fields if f.lower().startswith('host:')]
    path = line.split()[1]
    c.sendall(b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n')
    if path == '/slow':
        while True:
            c.sendall(b'tick\n')
            time.sleep(0.1)
    if path == '/bulk':
        for _ in range(BULK >> 16):
            c.sendall(b'x' * 65536)
    else:
        c.sendall(('%s %s\n' % (c.getsockname()[0], host[0] if host else '-')).encode())


def line(c):
    c.sendall(b'220 hello\n')


def listen(port, each, wrap=None):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('0.0.0.0', port))
    s.listen(128)

    def one(c):
        try:
            c = wrap(c) if wrap else c
            each(c)
        except (OSError, ValueError, struct.error):
            pass
        finally:
            c.close()

    while True:
        c = s.accept()[0]
        threading.Thread(target=one, args=(c,), daemon=True).start()


seen, lock = {}, threading.Lock()


def sniff():
    s = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(0x0800))
    while True:
        p, address = s.recvfrom(64)
        if address[2] == 0:    # to us: what the host sent
            to = socket.inet_ntoa(p[16:20])
            with lock:
                seen[to] = seen.get(to, 0) + 1


def serve(cert, key):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(cert, key)
    # what is sent to other addresses arrives here as well, and is counted
    for target, args in [(dns_udp, ()), (sniff, ()), (listen, (53, dns_tcp)), (listen, (80, web)), (listen, (8080, web)),
                         (listen, (25, line)), (listen, (2525, line)),
                         (listen, (443, web, lambda c: tls.wrap_socket(c, server_side=True)))]:
        threading.Thread(target=target, args=args, daemon=True).start()
    for port in (53, 80, 8080, 25, 2525, 443):
        while socket.socket().connect_ex(('127.0.0.1', port)):
            time.sleep(0.05)
    print('ready', flush=True)
    for _ in sys.stdin:
        with lock:
            print(json.dumps(seen), flush=True)
            seen.clear()


if __name__ == '__main__' and sys.argv[1:2] == ['serve']:
    serve(*sys.argv[2:4])
