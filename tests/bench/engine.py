#!/usr/bin/env python3
"""engine - create, sleep, fork, snapshots, commands, files; each beside bare QEMU in the same run, and the aims beside what came out.

usage: engine.py                      all of it, on an instance of its own in ./run-bench (made and removed)
       engine.py --agent HUTCH-AGENT --images DIR [--rounds N] [--sizes 256,1024] [--topics create,…]      the agent alone

The agent's topics start one under /tmp, spoken to on one connection that is kept. The bare figure is QEMU driven by a
script (bare.py): the same command line, memory image and disks, no journal, no uid, no fsync. A save of QEMU alone writes
all of the memory, ours what differs from the template's image. CPU is that of the agent, its launcher and all machines.
"""
import argparse
import json
import os
import struct
import subprocess
import sys
import threading
import time

sys.dont_write_bytecode = True
HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "vm")]
import capsules  # noqa: E402
import h2  # noqa: E402
import rest  # noqa: E402
from bare import Machine, Pattern  # noqa: E402
from instance import TOP, Cpu, Instance, cpu, own, pss, tree  # noqa: E402
from table import Samples, show  # noqa: E402
from watch_agent import TOKEN, Agent, new_id, wait_for  # noqa: E402

HEAD = ["", "n", "median ms", "p99 ms", "of bare", "CPU ms"]
SPEC = dict(template="minimal", vcpus=1, hostname="hutch", user="root", workdir="/root", access_token=TOKEN, envs={})
REACHED = {}  # name of an aim: what came out


class Aim:
    """A row of the last table: what architecture §6 and row 1 of spec 02 §9 ask for."""

    def __init__(self, name, limit, unit, at_least=False):
        self.name, self.limit, self.unit, self.at_least = name, limit, unit, at_least

    def row(self, value):
        good = value >= self.limit if self.at_least else value <= self.limit
        return [self.name, "%s %s %s" % (">=" if self.at_least else "<=", self.limit, self.unit), value, "yes" if good else "no"]


AIMS = [
    Aim("create, hot, agent's part", 10, "ms"),
    Aim("create, waiting, agent's part", 50, "ms"),
    Aim("create, spawned, agent's part", 80, "ms"),
    Aim("create to first command, hot", 2, "x bare"),
    Aim("create to first command, spawned", 1.2, "x bare"),
    Aim("creates a second", 0.9, "x bare", True),
    Aim("fork into 1, idle 256 MiB", 1.2, "x bare"),
    Aim("hibernate, idle 256 MiB", 1.2, "x bare"),
    Aim("wake, idle 256 MiB", 1.2, "x bare"),
    Aim("idle clone: memory", 25, "MiB PSS"),
    Aim("idle clone: disk", 1, "MiB"),
    Aim("hibernated: disk", 3, "MiB"),
    Aim("control plane at rest", 80, "MB PSS"),
    Aim("exec of true", 3, "x spawn and wait in the guest"),
    Aim("file up", 0.7, "x bare channel", True),
    Aim("file down", 0.7, "x bare channel", True),
]


class Bench:
    def __init__(self, args):
        self.agent = Agent(args.agent, args.images, "hutch-bench-", 68000, 400, pool_size=2, pool_max=8, pool_waiting=1)
        self.rounds = args.rounds

    def restart(self, **conf):
        if self.agent.proc:
            self.agent.stop()
        self.agent.start(**conf)
        self.session = h2.Session(self.agent.sock)

    def pids(self, part):
        machines = list(self.agent.qemus().values())
        return machines if part == "machines" else [p for p in tree([self.agent.proc.pid]) if p not in machines]

    def call(self, method, path, body=None, epoch=1, session=None):
        """The answer; milliseconds."""
        head = [("hutch-epoch", str(epoch)), ("hutch-op", new_id()), ("content-type", "application/json")]
        began = time.perf_counter()
        status, said = (session or self.session).request(method, "/agent/v1" + path, head,
                                                         b"" if body is None else json.dumps(body).encode())
        took = (time.perf_counter() - began) * 1000
        if status not in (200, 204):
            raise RuntimeError("%s %s: %s %s" % (method, path, status, said[:300]))
        return (json.loads(said) if said else None), took

    def create(self, memory, session=None, **more):
        cid = new_id()
        return cid, self.call("PUT", "/capsules/" + cid, dict(SPEC, epoch=1, memory_mb=memory, **more), session=session)[1]

    def true(self, cid):
        """A first command through the agent."""
        body = json.dumps({"process": {"cmd": "true", "args": []}, "since": 0, "stdin": False}).encode()
        head = [("content-type", "application/connect+json"), ("x-access-token", TOKEN)]
        status, said = self.session.request("POST", "/agent/v1/capsules/%s/guest/process.Process/Start" % cid, head,
                                            struct.pack(">BI", 0, len(body)) + body)
        if status != 200 or b'"end"' not in said:
            raise RuntimeError("exec: %s %s" % (status, said))

    def verb(self, cid, verb, body=None, epoch=1):
        return self.call("POST", "/capsules/%s/%s" % (cid, verb), body or {}, epoch)

    def delete(self, cid, epoch=1):
        self.call("DELETE", "/capsules/" + cid, None, epoch)

    def pool(self, kind, number, memory):
        def full():
            return any(p[kind] >= number and not p["making"] for n, p in self.agent.pools().items() if n.endswith("x%d" % memory))
        wait_for("%d %s of %d MiB" % (number, kind, memory), full, 120)

    def shape(self, memory):
        """The shape's image is there; the pattern of a bare one."""
        self.delete(self.create(memory)[0])
        self.pool("ready", 1, memory)
        return Pattern(self, self.agent.dir + "/bare-%d" % memory)

    def dirty(self, cid, megabytes):
        if megabytes:
            self.agent.run(cid, "head -c %dM /dev/urandom >/dev/shm/dirt" % megabytes)


class Timed:
    """Rows of one table: times and CPU by name."""

    def __init__(self, bench):
        self.bench, self.times, self.cpu = bench, {}, {}

    def step(self, name, fn, *args):
        before = Cpu({p: self.bench.pids(p) for p in ("agent", "machines")})
        began = time.perf_counter()
        got = fn(*args)
        took = (time.perf_counter() - began) * 1000
        spent = before.spent(1, {p: self.bench.pids(p) for p in ("agent", "machines")})
        self.times.setdefault(name, []).append(took)
        self.cpu.setdefault(name, []).append(sum(spent.values()) / 1000)
        return got

    def bare(self, name, machine, fn, *args):
        before = cpu([machine.proc.pid]) if machine else 0
        began = time.perf_counter()
        got = fn(*args)
        took = (time.perf_counter() - began) * 1000
        pid = (machine or got).proc.pid
        self.times.setdefault("bare: " + name, []).append(took)
        self.cpu.setdefault("bare: " + name, []).append((cpu([pid]) - before) / 1e6)
        return got

    def ratio(self, name):
        return Samples(self.times[name]).median / Samples(self.times["bare: " + name]).median

    def show(self, title):
        rows = []
        for name, times in self.times.items():
            s, base = Samples(times), self.times.get("bare: " + name)
            rows.append([name, s.n, s.median, s.p99, "%.2f" % (s.median / Samples(base).median) if base else "",
                         Samples(self.cpu[name]).median if name in self.cpu else None])
        show(title, HEAD, rows)


def spawned(pattern):
    m = Machine(pattern)
    m.ready()
    return m


def creates(b, memory):
    """Hot, waiting, spawned; a bare machine in turn."""
    pattern = b.shape(memory)
    t = Timed(b)
    for kind, conf in (("hot", dict(pool_size=2, pool_max=2, pool_waiting=0)), ("waiting", dict(pool_size=1, pool_max=1, pool_waiting=2)),
                       ("spawned", dict(pool_size=0, pool_waiting=0))):
        b.restart(**conf)
        if kind != "spawned":
            b.pool("ready", 1, memory)
        else:
            wait_for("the image", lambda: any(p["image"] == "ready" for p in b.agent.pools().values()), 60)
        for _ in range(b.rounds):
            taken = []
            if kind == "hot":
                b.pool("ready", 2, memory)
            elif kind == "waiting":
                taken.append(b.create(memory)[0])
                b.pool("waiting", 1, memory)
                while any(p["ready"] for n, p in b.agent.pools().items() if n.endswith("x%d" % memory)):
                    taken.append(b.create(memory)[0])
            time.sleep(0.3)
            name, first = "create, " + kind, "create to first command, " + kind
            taken.append(t.step(name, b.create, memory)[0])
            t.step(first, b.true, taken[-1])
            for cid in taken:
                b.delete(cid)
            bare_create(t, kind, name, first, pattern)
            for side in ("", "bare: "):  # from the create on
                t.times[side + first][-1] += t.times[side + name][-1]
                t.cpu[side + first][-1] += t.cpu[side + name][-1]
    t.show("Create, %d MiB" % memory)
    if memory == 256:
        for kind in ("hot", "waiting", "spawned"):
            REACHED["create, %s, agent's part" % kind] = Samples(t.times["create, " + kind]).median
            REACHED["create to first command, " + kind] = t.ratio("create to first command, " + kind)


def bare_create(t, kind, name, first, pattern):
    if kind == "spawned":
        m = t.bare(name, None, spawned, pattern)
    else:
        m = Machine(pattern)
        if kind == "hot":
            m.ready()
            m.stop()
        time.sleep(0.2)
        t.bare(name, m, (lambda: (m.cont(), m.init())) if kind == "hot" else m.ready)
    t.bare(first, m, m.run)
    m.close()


def sleep(b, memory, dirt):
    """Pause, resume, hibernate, wake, snapshot, rollback."""
    b.restart(pool_size=1, pool_max=1, pool_waiting=0)
    pattern = b.shape(memory)
    t = Timed(b)
    for _ in range(b.rounds):
        cid, epoch = b.create(memory)[0], 1
        b.dirty(cid, dirt)
        t.step("pause", b.verb, cid, "pause", {"by": "user"}, epoch)
        epoch += 1
        t.step("resume", b.verb, cid, "resume", dict(SPEC), epoch)
        shot = t.step("snapshot", b.verb, cid, "snapshot", {"snapshot": "snp-bench", "memory": True}, epoch)[0]
        epoch += 1
        t.step("rollback", b.verb, cid, "rollback", dict(SPEC, memory=shot["memory"], disk=shot["disk"]), epoch)
        kept = t.step("hibernate", b.verb, cid, "hibernate", {"memory": True, "by": "user"}, epoch)[0]
        epoch += 1
        image = {"memory": kept["memory"], "disk": kept["disk"]}
        t.step("wake", b.call, "PUT", "/capsules/" + cid, dict(SPEC, epoch=epoch, memory_mb=memory, image=image), epoch)
        b.delete(cid, epoch)
        bare_sleep(t, pattern, dirt)
    t.show("Sleep, %d MiB, %s" % (memory, "%d MiB dirtied" % dirt if dirt else "idle"))
    if memory == 256 and not dirt:
        for name in ("hibernate", "wake"):
            REACHED[name + ", idle 256 MiB"] = t.ratio(name)


def bare_sleep(t, pattern, dirt):
    m, path = spawned(pattern), pattern.folder + "/saved"
    if dirt:
        m.run_args("/bin/sh", ["-c", "head -c %dM /dev/urandom >/dev/shm/dirt" % dirt])
    t.bare("pause", m, m.stop)
    t.bare("resume", m, lambda: (m.cont(), m.health()))

    def shot():
        m.stop()
        m.save(path)
        m.cont()
    t.bare("snapshot", m, shot)
    m.stop()
    t.bare("hibernate", m, m.save, path)
    m.close(keep_disk=True)

    def wake():
        w = Machine(pattern, m.disk)
        w.load(path)
        w.cont()
        w.health()
        return w
    for name, keep in (("wake", True), ("rollback", False)):
        t.bare(name, None, wake).close(keep)
    os.unlink(path)


def forks(b, memory, dirt, numbers):
    b.restart(pool_size=1, pool_max=1, pool_waiting=0)
    pattern = b.shape(memory)
    for number in numbers:
        t = Timed(b)
        for _ in range(b.rounds if number == 1 else 2 if number <= 10 else 1):
            cid = b.create(memory)[0]
            b.dirty(cid, dirt)
            ids = [new_id() for _ in range(number)]
            got = t.step("fork", b.verb, cid, "fork", {"memory": True, "children": [dict(SPEC, id=i, epoch=1) for i in ids]})[0]
            failed = [c for c in got["children"] if "error" in c]
            if failed:
                print("# %d of %d children failed: %s" % (len(failed), number, failed[0]["error"]))
            for i in [cid] + [c["id"] for c in got["children"] if "error" not in c]:
                b.delete(i)
            bare_fork(t, pattern, dirt, number)
        t.show("Fork into %d, %d MiB, %s" % (number, memory, "%d MiB dirtied" % dirt if dirt else "idle"))
        if number == 1 and memory == 256 and not dirt:
            REACHED["fork into 1, idle 256 MiB"] = t.ratio("fork")


def bare_fork(t, pattern, dirt, number):
    m, path, children = spawned(pattern), pattern.folder + "/forked", []
    if dirt:
        m.run_args("/bin/sh", ["-c", "head -c %dM /dev/urandom >/dev/shm/dirt" % dirt])

    def one():
        c = Machine(pattern)
        c.load(path)
        c.cont()
        c.health()
        c.init()
        children.append(c)

    def many():
        m.stop()
        m.save(path)
        m.cont()
        left = list(range(number))

        def work():
            while left:
                left.pop()
                one()
        threads = [threading.Thread(target=work) for _ in range(min(number, os.cpu_count()))]
        for th in threads:
            th.start()
        for th in threads:
            th.join()
    t.bare("fork", m, many)
    for c in (m, *children):
        c.close()


def sustained(b, memory, number):
    """Creates a second, two callers; and what refilling costs the creates between which it happens."""
    b.restart(pool_size=2, pool_max=8, pool_waiting=1)
    pattern = b.shape(memory)
    ids, rows = [], []

    def work(n, fn):
        began = time.perf_counter()
        threads = [threading.Thread(target=lambda: [fn() for _ in range(n // 2)]) for _ in range(2)]
        for th in threads:
            th.start()
        for th in threads:
            th.join()
        return n / (time.perf_counter() - began)
    local = threading.local()

    def ours():
        if not hasattr(local, "s"):
            local.s = h2.Session(b.agent.sock)
        ids.append(b.create(memory, local.s)[0])
    rate = work(number, ours)
    for cid in ids:
        b.delete(cid)
    made = []
    bare = work(number, lambda: made.append(spawned(pattern)))
    for m in made:
        m.close()
    REACHED["creates a second"] = rate / bare
    rows.append(["Hutch", number, rate, "%.2f" % (rate / bare)])
    rows.append(["bare: spawned", number, bare, ""])
    show("Creates a second, two callers, %d MiB" % memory, ["", "n", "per second", "of bare"], rows)


def refill(b, memory, number):
    """Hot creates every 0.6 s, the pool is refilled between them; and so close together that no refill begins."""
    t = Timed(b)
    for name, pause, conf in (("while the pool is refilled", 0.6, dict(pool_size=2, pool_max=2, pool_waiting=1)),
                              ("while no refill begins", 0.02, dict(pool_size=number, pool_max=number, pool_waiting=0))):
        b.restart(**conf)
        b.shape(memory)
        b.pool("ready", conf["pool_size"], memory)
        time.sleep(1)
        ids = []
        for _ in range(number):
            cid, took = b.create(memory)
            t.times.setdefault(name, []).append(took)
            ids.append(cid)
            time.sleep(pause)
        for cid in ids:
            b.delete(cid)
    t.show("Hot creates with and without refilling between them, %d MiB" % memory)


def density(b, memory, number):
    b.restart(pool_size=0, pool_waiting=0)
    b.delete(b.create(memory)[0])
    wait_for("the image", lambda: any(p["image"] == "ready" for p in b.agent.pools().values()), 90)
    ids = [b.create(memory)[0] for _ in range(number)]
    time.sleep(3)
    machines = b.pids("machines")
    ours = at_rest(machines, number, blocks(b.agent.state + "/vm"))
    store = blocks(b.agent.state + "/artifacts", "")
    pattern = Pattern(b, b.agent.dir + "/bare-rest")
    for cid in ids:
        b.verb(cid, "hibernate", {"memory": True, "by": "user"})
    asleep = (blocks(b.agent.state + "/artifacts", "") - store) / number
    made = [spawned(pattern) for _ in range(number)]
    time.sleep(3)
    bare = at_rest([m.proc.pid for m in made], number, sum(os.stat(m.disk).st_blocks / 2048 for m in made))
    for m in made:
        m.close()
    rows = [[name, x, y] for (name, x), (_, y) in zip(ours, bare)]
    rows += [["hibernated: disk, MiB", asleep, None], ["agent and launcher together: PSS, MiB", pss(b.pids("agent")), None]]
    show("%d idle clones of %d MiB" % (number, memory), ["", "per clone", "bare"], rows)
    REACHED.update({"idle clone: memory": ours[0][1], "idle clone: disk": ours[2][1], "hibernated: disk": asleep})


def at_rest(machines, number, disks):
    before = Cpu({"machines": machines})
    time.sleep(5)
    return [("PSS, MiB", pss(machines) / number), ("its own of it, MiB", own(machines) / number), ("disk, MiB", disks / number),
            ("CPU, percent of a core", before.spent(1)["machines"] / 1e4 / number / 5)]


def blocks(top, end=".qcow2"):
    """MiB on the disk below a folder."""
    return sum(os.stat(os.path.join(folder, f)).st_blocks for folder, _, files in os.walk(top) for f in files
               if f.endswith(end)) / 2048


def platform(args):
    """Control plane at rest, commands, files: through everything. Returns agent and images."""
    inst = Instance(args.run, args.build)
    try:
        REACHED["control plane at rest"] = rest.rest(inst, args)
        REACHED["exec of true"] = capsules.commands(inst, args)
        REACHED["file up"], REACHED["file down"] = capsules.files(inst, args)
        return inst.read("state/prefix").strip() + "/sbin/hutch-agent", inst.run + "/images"
    finally:
        subprocess.run([TOP + "/quickstart", "--run", inst.run, "--stop"], check=True, stdout=subprocess.DEVNULL)


def engine(args):
    b, sizes, topics = Bench(args), [int(x) for x in args.sizes.split(",")], args.topics.split(",")
    small, large = sizes[0], sizes[1:]
    many = tuple(int(x) for x in args.forks.split(","))
    todo = [("create", creates, [(m,) for m in sizes]), ("sleep", sleep, [(m, d) for m in sizes for d in (0, 64)]),
            ("fork", forks, [(small, 0, many), (small, 64, many[:2]), *((m, d, many[:2]) for m in large for d in (0, 64))]),
            ("sustained", sustained, [(small, args.number)]), ("refill", refill, [(small, args.number)]),
            ("density", density, [(small, args.number)])]
    try:
        for name, fn, calls in todo:
            for call in calls if name in topics else ():
                b.restart()  # with the pools that it began with: the one before may have left none
                fn(b, *call)
    finally:
        b.agent.end()


def arguments():
    p = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    p.add_argument("--agent", help="only the agent's topics, with this program")
    p.add_argument("--images", help="its templates")
    p.add_argument("--run", default=TOP + "/run-bench", help="the instance's folder (run-bench)")
    p.add_argument("--build", default=TOP + "/build", help="the build folder (build)")
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--sizes", default="256,1024")
    p.add_argument("--forks", default="1,10,50")
    p.add_argument("--topics", default="create,sleep,fork,sustained,refill,density")
    p.add_argument("--number", type=int, default=20, help="of clones alive, and of sustained creates")
    p.add_argument("--megabytes", type=int, default=50, help="of the file")
    p.add_argument("--idle", type=int, default=5, help="seconds of doing nothing")
    args = p.parse_args()
    if (args.agent is None) != (args.images is None):
        p.error("--agent and --images belong together")
    return args


def main():
    args, began = arguments(), time.time()
    print("# %s, %d CPUs, load %.1f" % (time.strftime("%F %R", time.gmtime()), os.cpu_count(), os.getloadavg()[0]))
    whole = args.agent is None
    try:
        if whole:
            args.agent, args.images = platform(args)
        engine(args)
    finally:
        if whole:
            subprocess.run([TOP + "/quickstart", "--run", args.run, "--reset"], check=True, stdout=subprocess.DEVNULL)
    show("Aims (architecture §6)", ["", "aim", "reached", ""], [a.row(REACHED[a.name]) for a in AIMS if a.name in REACHED])
    print("\n# %d s, load %.1f" % (time.time() - began, os.getloadavg()[0]))


if __name__ == "__main__":
    main()
