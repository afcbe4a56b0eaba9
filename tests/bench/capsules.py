"""capsules - create to first command, a command's round trip, files; each against the bare machine."""
import os
import time

from bare import TOKEN, Machine, Pattern
from instance import PARTS, Cpu, sh
from table import Samples, add, show, split

EVERY = (*PARTS, "machines")
HEAD = ["", "n", "median ms", "p99 ms", "of bare", "CPU us", "of it"]


def timed(fn, *args):
    """Milliseconds."""
    began = time.perf_counter()
    fn(*args)
    return (time.perf_counter() - began) * 1000


def groups(inst):
    return {p: inst.pids(p) for p in EVERY}


def row(name, times, base, cpu=None):
    s = Samples(times)
    return [name, s.n, s.median, s.p99, "%.2f" % (s.median / base), *(split(cpu) if cpu else (None, None))]


# --- create ------------------------------------------------------------------------------------

def first_command(inst, marks):
    """One create with its first command; times since the start."""
    began = time.perf_counter()
    capsule = inst.capsule()
    made = time.perf_counter()
    inst.execute(capsule)
    done = time.perf_counter()
    marks["made"].append((made - began) * 1000)
    marks["done"].append((done - began) * 1000)
    return capsule


def bare_spawned(pattern, marks):
    """QEMU from nothing: loaded, first answer, identity, first command."""
    began = time.perf_counter()
    m = Machine(pattern)
    try:
        for name, step in (("loaded", m.load), ("answer", lambda: (m.cont(), m.health())), ("init", m.init), ("done", m.run)):
            step()
            marks.setdefault(name, []).append((time.perf_counter() - began) * 1000)
    finally:
        m.close()


def bare_hot(pattern, marks):
    """A machine that stands ready as those of the pool do: continued, identity, first command."""
    m = Machine(pattern)
    try:
        m.ready()
        m.stop()
        time.sleep(0.2)
        began = time.perf_counter()
        m.cont()
        m.init()
        marks.setdefault("init", []).append((time.perf_counter() - began) * 1000)
        m.run()
        marks.setdefault("done", []).append((time.perf_counter() - began) * 1000)
    finally:
        m.close()


def round_trip(inst, number=50):
    """One request through web server, API and database: what a create adds to the engine in any case."""
    return Samples(timed(inst.call, "GET", "/v1/auth/whoami") for _ in range(number)).median


def creates(inst, args):
    """From the pool and without one; the bare machine in turn with both."""
    pattern = Pattern(inst, inst.run + "/bare")
    for name, bare, pool in (("from the pool", bare_hot, 2), ("spawned", bare_spawned, 0)):
        if inst.pool_size != pool:
            inst.start(pool)
        ours, theirs, cpu = {"made": [], "done": []}, {}, {}
        for _ in range(args.creates):
            inst.wait_pool(pool)
            time.sleep(0.5)
            before = Cpu(groups(inst))
            capsule = first_command(inst, ours)
            add(cpu, before.spent(1, groups(inst)))
            destroyed(inst, capsule)
            inst.wait_pool(pool)
            time.sleep(0.5)
            bare(pattern, theirs)
        trip = round_trip(inst)
        base = Samples(theirs["done"]).median
        show("Create to first command, %s (one API round trip: %.1f ms)" % (name, trip), HEAD,
             [row("bare: " + TITLES[k], v, base) for k, v in theirs.items()] +
             [row("Hutch: 201 of the create", ours["made"], base),
              row("Hutch: first command answered", ours["done"], base, cpu)])
    inst.start(2)


TITLES = {"loaded": "state loaded", "answer": "first answer", "init": "identity set", "done": "first command answered"}


def destroyed(inst, capsule):
    """Destroys it and waits until its machine is gone."""
    inst.destroy(capsule)
    for _ in range(200):
        if all(c["id"] != capsule for c in inst.agent_capsules()):
            return
        time.sleep(0.05)


# --- commands ----------------------------------------------------------------------------------

SPAWN = """import os, time
for i in range(%d):
    t = time.perf_counter()
    os.waitpid(os.posix_spawn("/bin/true", ["true"], {}), 0)
    print((time.perf_counter() - t) * 1000)"""


def commands(inst, args):
    """`true` from outside, against what starting it costs in the guest, and against the bare guest channel. Returns the ratio."""
    pattern = Pattern(inst, inst.run + "/bare")
    capsule, m = inst.capsule(), Machine(pattern)
    inside, ours, channel, cpu = [], [], [], {}
    try:
        m.ready()
        for turn in range(args.rounds + 1):
            said = [float(x) for x in inst.execute(capsule, "python3", ["-c", SPAWN % 20]).split()]
            before = Cpu(groups(inst))
            times = [timed(inst.execute, capsule) for _ in range(20)]
            spent = before.spent(20)
            bare = [timed(m.run) for _ in range(20)]
            if turn:  # the first round translates the code
                inside += said
                ours += times
                channel += bare
                add(cpu, spent)
    finally:
        m.close()
        inst.destroy(capsule)
    base = Samples(inside).median
    show("exec of true", [*HEAD[:4], "of guest", *HEAD[5:]], [
        row("in the guest: posix_spawn and wait", inside, base), row("bare guest channel", channel, base),
        row("Hutch: lighttpd, gateway, agent, guest", ours, base, cpu)])
    return Samples(ours).median / base


# --- files -------------------------------------------------------------------------------------

def curl(*args):
    """MiB a second of a transfer, either way."""
    size, seconds = sh("curl", "-fsS", "-m", "300", "-o", "/dev/null", "-w", "%{size_upload} %{size_download} %{time_total}",
                       "-H", "Expect:", *args).rsplit(" ", 1)
    return max(int(x) for x in size.split()) / float(seconds) / 1048576


def files(inst, args):
    """A file up and down, through everything and over the guest channel alone. Returns the ratios."""
    pattern, path = Pattern(inst, inst.run + "/bare"), inst.run + "/tmp/bench.bin"
    capsule, m = inst.capsule(), Machine(pattern)
    got, cpu = {"up": [], "down": [], "bare up": [], "bare down": []}, {"up": {}, "down": {}}
    with open(path, "wb") as f:
        f.write(os.urandom(1048576) * args.megabytes)
    key, guest = ["-H", "X-API-Key: " + inst.key], bare_channel(m)
    url = "http://127.0.0.1:%d/v1/capsules/%s/files/" % (inst.port, capsule)
    try:
        for _ in range(max(2, args.rounds - 2)):
            for name, call in (("up", [*key, "-F", "path=/root/x", "-F", "file=@" + path, url + "write"]),
                               ("down", [*key, "--json", '{"path":"/root/x"}', url + "read"])):
                before = Cpu(groups(inst))
                got[name].append(curl(*call))
                add(cpu[name], before.spent(args.megabytes))
            got["bare up"].append(curl(*guest, "-F", "file=@" + path, "http://guest/files?path=/root/x"))
            got["bare down"].append(curl(*guest, "http://guest/files?path=/root/x"))
    finally:
        os.unlink(path)
        m.close()
        inst.destroy(capsule)
    show("A file of %d MiB" % args.megabytes, ["", "n", "MiB/s", "of bare", "CPU us/MiB", "of it"], [
        file_row(way, got, cpu) for way in ("up", "down")])
    return [Samples(got[way]).median / Samples(got["bare " + way]).median for way in ("up", "down")]


def bare_channel(m):
    """What curl needs to talk to the guest alone: our session makes room for its."""
    m.ready()
    m.guest.close()
    return ["--http2-prior-knowledge", "--unix-socket", m.paths["guest"], "-H", "x-access-token: " + TOKEN]


def file_row(way, got, cpu):
    ours, bare = Samples(got[way]), Samples(got["bare " + way]).median
    return ["%s (bare channel: %.0f MiB/s)" % (way, bare), ours.n, ours.median, "%.2f" % (ours.median / bare), *split(cpu[way])]
