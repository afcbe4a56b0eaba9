"""bare - the same virtual machine without Hutch: QEMU started, loaded and spoken to by this script.

The command line is that of a clone in the agent's pool, and so are memory image, device state and disks; only the
overlay and the two sockets are new. What is left out is what Hutch adds: its own uid, the journal, the database, HTTP.
"""
import atexit
import base64
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import threading
import time

import h2

TOKEN = "00112233445566778899aabbccddeeff"
SOCKETS = ("qmp", "guest", "serial")
ALIVE = set()
STARTING = threading.Lock()  # descriptors get numbers that all threads share


class Pattern:
    """What a ready clone of the pool was made of: its command line, and the descriptors that it names."""

    def __init__(self, inst, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        pid = inst.pids("machines")[0]
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            self.argv = [a.decode() for a in f.read().split(b"\0")[:-1]]
        self.argv[self.argv.index("-name") + 1] = "bench-bare"
        # A network of its own is the launcher's gift; a script has none to give.
        self.argv = ["user,id=n0,restrict=on" if a.startswith("tap,") else a for a in self.argv]
        text = " ".join(self.argv)
        self.sockets = {name: int(n) for name, n in re.findall(r"id=(\w+),fd=(\d+)", text) if name in SOCKETS}
        # QEMU has moved the disks' descriptors since: they are known by their files.
        files = {name: n for n, name in ((n, os.readlink("/proc/%d/fd/%s" % (pid, n))) for n in os.listdir("/proc/%d/fd" % pid))}
        base = next(n for n in files if n.endswith("/disk.qcow2") and "/vm/" not in n)
        number = {node: int(n) for node, n in re.findall(r"node-name=(\w+),[^ ]*filename=/dev/fdset/(\d+)", text)}
        self.disk = number["d1"]
        of = {"d0": next(n for n in files if n.endswith("/rootfs.erofs")), "l0": next(n for n in files if n.endswith("/upper.qcow2")),
              "l1": base}
        # The memory is a sealed memfd, which no name leads to but this one; held here, it outlives the clone.
        memory = int(re.search(r"mem-path=/proc/self/fd/(\d+)", text).group(1))
        self.files = {number[node]: os.open("/proc/%d/fd/%s" % (pid, files[name]), os.O_RDONLY) for node, name in of.items()}
        self.files[memory] = os.open("/proc/%d/fd/%d" % (pid, memory), os.O_RDWR)
        self.state = os.path.dirname(base) + "/state"
        size = json.loads(subprocess.run(["qemu-img", "info", "-U", "--output=json", base], check=True,
                                         stdout=subprocess.PIPE).stdout)["virtual-size"]
        self.overlay = folder + "/empty.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", self.overlay, str(size)], check=True)


class Machine:
    """One QEMU: started, then load(), cont(), init(), run()."""

    serial = 0

    def __init__(self, pattern, disk=None):
        Machine.serial += 1
        self.pattern = pattern
        base = "%s/%d" % (pattern.folder, Machine.serial)
        self.disk = disk or base + ".qcow2"
        self.paths = {name: "%s.%s" % (base, name) for name in pattern.sockets}
        if not disk:
            shutil.copyfile(pattern.overlay, self.disk)
        listening = {name: listener(path) for name, path in self.paths.items()}
        fd = os.open(self.disk, os.O_RDWR)
        given = {**pattern.files, pattern.disk: fd, **{pattern.sockets[n]: s.fileno() for n, s in listening.items()}}
        with STARTING:
            self.proc = start(pattern.argv, given)
        ALIVE.add(self)
        os.close(fd)
        self.qmp = socket.socket(socket.AF_UNIX)
        self.qmp.connect(self.paths["qmp"])
        self.guest = h2.Session(self.paths["guest"])
        for s in listening.values():
            s.close()
        self.left, self.epoch = b"", 0
        self.line()
        self.command("qmp_capabilities")

    def line(self):
        while b"\n" not in self.left:
            more = self.qmp.recv(65536)
            if not more:
                raise EOFError("QEMU ended")
            self.left += more
        one, self.left = self.left.split(b"\n", 1)
        return json.loads(one)

    def command(self, name, fd=None, **arguments):
        text = json.dumps({"execute": name, "arguments": arguments}).encode()
        socket.send_fds(self.qmp, [text], [] if fd is None else [fd])
        while True:
            said = self.line()
            if "error" in said:
                raise RuntimeError("%s: %s" % (name, said["error"]))
            if "return" in said:
                return

    def load(self, path=None):
        self.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        state = os.open(path or self.pattern.state, os.O_RDONLY)
        self.command("getfd", fd=state, fdname="state")
        os.close(state)
        self.command("migrate-incoming", uri="fd:state")
        self.moved()

    def moved(self):
        while True:
            said = self.line()
            if said.get("event") == "MIGRATION" and said["data"]["status"] in ("completed", "failed"):
                if said["data"]["status"] == "failed":
                    raise RuntimeError("QEMU could not move its state")
                return

    def save(self, path):
        """All of its memory into a file, as QEMU does it alone; it must stand still."""
        self.command("migrate-set-parameters", **{"max-bandwidth": 1 << 40})
        to = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        self.command("getfd", fd=to, fdname="to")
        os.close(to)
        self.command("migrate", uri="fd:to")
        self.moved()

    def cont(self, tries=200):
        """QEMU tells of the end of a save a moment before it can go on."""
        try:
            self.command("cont")
        except RuntimeError as e:
            if not tries or "not finalized" not in str(e):
                raise
            time.sleep(0.001)
            self.cont(tries - 1)

    def stop(self):
        self.command("stop")

    def health(self, tries=5):
        """The first answer; a guest that comes up may lose the first session, as the agent knows, too."""
        self.guest.sock.settimeout(2)
        try:
            status, _ = self.guest.request("GET", "/health")
        except (TimeoutError, EOFError):
            if not tries:
                raise
            self.guest.close()
            self.guest = h2.Session(self.paths["guest"])
            self.health(tries - 1)
            return
        self.guest.sock.settimeout(60)
        if status != 204:
            raise RuntimeError("health: %s" % status)

    def ready(self):
        """Loaded, running, with an identity."""
        self.load()
        self.cont()
        self.health()
        self.init()

    def init(self):
        self.epoch += 1
        body = {"epoch": self.epoch, "accessToken": TOKEN, "defaultUser": "root", "defaultWorkdir": "/root",
                "hostname": "hutch", "machineId": os.urandom(16).hex(),
                "entropy": base64.b64encode(os.urandom(64)).decode(), "timestamp": time.time_ns()}
        status, said = self.guest.request("POST", "/init", [("content-type", "application/json")], json.dumps(body).encode())
        if status not in (200, 204):
            raise RuntimeError("init: %s %s" % (status, said))

    def run(self, command="true"):
        self.run_args(command, [])

    def run_args(self, command, args):
        body = json.dumps({"process": {"cmd": command, "args": args}, "since": 0, "stdin": False}).encode()
        status, said = self.guest.request("POST", "/process.Process/Start", [
            ("content-type", "application/connect+json"), ("x-access-token", TOKEN)],
            struct.pack(">BI", 0, len(body)) + body)
        if status != 200 or b'"end"' not in said:
            raise RuntimeError("exec: %s %s" % (status, said))

    def close(self, keep_disk=False):
        ALIVE.discard(self)
        self.proc.kill()
        self.proc.wait()
        self.qmp.close()
        self.guest.close()
        for path in (*(() if keep_disk else (self.disk,)), *self.paths.values()):
            os.unlink(path)


@atexit.register
def end_all():
    """None outlives the script."""
    for machine in list(ALIVE):
        machine.proc.kill()


def listener(path):
    s = socket.socket(socket.AF_UNIX)
    s.bind(path)
    s.listen(4)
    return s


def start(argv, given):
    """posix_spawn with the descriptors at the numbers that the command line names."""
    high = {n: os.dup2(fd, 200 + n) for n, fd in given.items()}
    actions = [(os.POSIX_SPAWN_DUP2, fd, n) for n, fd in high.items()]
    actions += [(os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)]
    pid = os.posix_spawn(argv[0], argv, {}, file_actions=actions)
    for fd in high.values():
        os.close(fd)
    return Child(pid)


class Child:
    """What posix_spawn started."""

    def __init__(self, pid):
        self.pid = pid

    def kill(self):
        os.kill(self.pid, 9)

    def wait(self):
        os.waitpid(self.pid, 0)
