"""bare - the same virtual machine without Hutch: QEMU started, loaded and spoken to by this script.

The command line is that of a clone in the agent's pool, and so are memory image, device state and disks; only the
overlay and the two sockets are new. What is left out is what Hutch adds: its own uid, the journal, the database, HTTP.
"""
import base64
import json
import os
import shutil
import socket
import struct
import subprocess
import time

import h2

MEMORY, ROOT, UPPER, BASE, DISK, GUEST, QMP = range(3, 10)
TOKEN = "00112233445566778899aabbccddeeff"


class Pattern:
    """What a ready clone of the pool was made of."""

    def __init__(self, inst, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        pid = inst.pids("machines")[0]
        with open("/proc/%d/cmdline" % pid, "rb") as f:
            self.argv = [a.decode() for a in f.read().split(b"\0")[:-1]]
        self.argv[self.argv.index("-name") + 1] = "bench-bare"
        names = {n: os.readlink("/proc/%d/fd/%s" % (pid, n)) for n in os.listdir("/proc/%d/fd" % pid)}

        def opened(ending):
            return os.open(next(n for n in names.values() if n.endswith(ending)), os.O_RDONLY)

        image = os.path.dirname(next(n for n in names.values() if "/memory/" in n))
        # The memory is a sealed memfd, which no name leads to but this one; held here, it outlives the clone.
        self.files = {MEMORY: os.open("/proc/%d/fd/%d" % (pid, MEMORY), os.O_RDWR), ROOT: opened("/rootfs.erofs"),
                      UPPER: opened("/upper.qcow2"), BASE: os.open(image + "/disk.qcow2", os.O_RDONLY)}
        self.state = image + "/state"
        self.overlay = folder + "/empty.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", image + "/disk.qcow2", self.overlay],
                       check=True)


class Machine:
    """One QEMU: started, then load(), cont(), init(), run()."""

    serial = 0

    def __init__(self, pattern):
        Machine.serial += 1
        self.pattern = pattern
        base = "%s/%d" % (pattern.folder, Machine.serial)
        self.disk, self.paths = base + ".qcow2", {QMP: base + ".q", GUEST: base + ".g"}
        shutil.copyfile(pattern.overlay, self.disk)
        listening = {n: listener(path) for n, path in self.paths.items()}
        disk = os.open(self.disk, os.O_RDWR)
        given = {**pattern.files, DISK: disk, **{n: s.fileno() for n, s in listening.items()}}
        self.proc = start(pattern.argv, given)
        os.close(disk)
        self.qmp = socket.socket(socket.AF_UNIX)
        self.qmp.connect(self.paths[QMP])
        self.guest = h2.Session(self.paths[GUEST])
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

    def load(self):
        self.command("migrate-set-capabilities", capabilities=[{"capability": "events", "state": True}])
        state = os.open(self.pattern.state, os.O_RDONLY)
        self.command("getfd", fd=state, fdname="state")
        os.close(state)
        self.command("migrate-incoming", uri="fd:state")
        while True:
            said = self.line()
            if said.get("event") == "MIGRATION" and said["data"]["status"] in ("completed", "failed"):
                if said["data"]["status"] == "failed":
                    raise RuntimeError("QEMU could not load its state")
                return

    def cont(self):
        self.command("cont")

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
            self.guest = h2.Session(self.paths[GUEST])
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
        body = json.dumps({"process": {"cmd": command}, "since": 0, "stdin": False}).encode()
        status, said = self.guest.request("POST", "/process.Process/Start", [
            ("content-type", "application/connect+json"), ("x-access-token", TOKEN)],
            struct.pack(">BI", 0, len(body)) + body)
        if status != 200 or b'"end"' not in said:
            raise RuntimeError("exec: %s %s" % (status, said))

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.qmp.close()
        self.guest.close()
        for path in (self.disk, *self.paths.values()):
            os.unlink(path)


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
