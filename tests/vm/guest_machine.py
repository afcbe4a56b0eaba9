"""guest_machine.py - checks of the guest agent: in a machine."""
import base64
import os
import socket
import subprocess
import time

from guest_lib import F, check, frame, has, same, until
from guest_files import put


@check("machine")
def it_boots(m):
    begin = time.time()
    while time.time() - begin < 300:
        try:
            if m.call("GET", "/health", more=("--max-time", "5"))[0] == 204:
                print(f"# {time.time() - m.begin:.1f} s from qemu to health", flush=True)
                return
        except (AssertionError, IndexError, ValueError):
            time.sleep(0.1)
    raise AssertionError("no answer in 300 s")


@check("machine")
def init_gives_it_an_identity(m):
    m.epoch = 1
    same(m.init(defaultUser="root", defaultWorkdir="/root", hostname="blue", machineId="ab" * 16,
                timestamp=time.time_ns(), entropy=base64.b64encode(os.urandom(64)).decode())[0], 204)
    lines = m.sh("hostname; cat /etc/machine-id; pwd; id -un; getent hosts blue | wc -l").split()
    same(lines, ["blue", "ab" * 16, "/root", "root", "1"])
    same(len(m.sh("cat /proc/sys/kernel/random/boot_id").strip()), 36)


@check("machine")
def its_clock_is_right(m):
    begin = time.time()
    clock = float(m.sh("date +%s.%N"))
    if not begin - 5 < clock < time.time() + 5:
        raise AssertionError(f"{clock - begin:.1f} s ahead")


@check("machine")
def it_has_what_the_recipe_says(m):
    out = m.sh("for c in bash sudo git curl tar gzip xz python3 python ip ps; do command -v $c >/dev/null || echo no $c; done")
    same(out, "")
    has(m.sh("python -c 'print(6*7)'"), "42")
    auth = {"authorization": "Basic " + base64.b64encode(b"user:").decode()}
    same(m.sh("id -u; sudo id -u; echo $HOME; pwd", headers=auth).split(), ["1000", "0", "/home/user", "/home/user"])


@check("machine")
def its_mounts_are_there(m):
    out = m.sh("mount; ls -ld /tmp /dev/shm /dev/fd; ip -o addr; cat /etc/resolv.conf; cat /proc/1/oom_score_adj")
    for part in ("overlay on / ", "devpts on /dev/pts", "/dev/shm type tmpfs", "proc on /proc", "drwxrwxrwt", "10.0.2.15/24",
                 "127.0.0.1/8", "10.0.2.3", "-1000"):
        has(out, part)
    same(m.sh("df --output=source /tmp | tail -1").strip(), "overlay")


@check("machine")
def directories_of_the_image_can_be_moved(m):
    m.ok(F + "Move", {"source": "/usr/share/git-core", "destination": "/usr/share/git-moved"})
    m.ok(F + "Move", {"source": "/usr/share/git-moved", "destination": "/usr/share/git-core"})


@check("machine")
def orphans_are_reaped(m):
    m.sh("(sh -c 'sleep 0.1 & sleep 0.1 & exit' &)")
    until("no zombies", lambda: m.sh("ps -eo stat | grep -c Z").strip() == "0")


@check("machine")
def its_disk_is_grown(m):
    size = int(m.sh("df --output=size -B1M / | tail -1"))
    if size < 6500:
        raise AssertionError(f"{size} MB of a disk of 8 GiB")


@check("machine")
def a_lost_host_is_forgotten(m):
    p = subprocess.Popen(m.curl("/files?path=/dev/null", {}), stdout=subprocess.DEVNULL)
    s = m.start("sh", "-c", "head -c 50000000 /dev/zero; sleep 1", tag="big")
    s.start()
    s.message()
    s.close()  # in the middle of a frame
    p.wait()
    begin, good = time.time(), 0
    while good < 5:
        if time.time() - begin > 120:
            raise AssertionError("it does not come back")
        good = good + 1 if met(m) else drained(m)


def drained(m):
    """What the guest still said to a host of before is read, and nobody's any more."""
    with socket.socket(socket.AF_UNIX) as s:
        s.settimeout(0.5)
        s.connect(m.path)
        try:
            while s.recv(1 << 16):
                pass
        except TimeoutError:
            pass
    return 0


def met(m):
    """curl's sessions have no marks: what the guest still said to the one before may come first. Whether this answer is its own."""
    nonce = os.urandom(16).hex()
    try:
        status, fields, _ = m.call("GET", "/health", headers={"x-hutch-nonce": nonce}, more=("--max-time", "10"))
    except AssertionError:
        return False
    return status == 204 and fields.get("x-hutch-nonce") == nonce


@check("machine")
def bytes_go_through_the_port_whole(m):
    data = os.urandom(30 << 20)
    begin = time.time()
    same(put(m, "/root/big", data)[0], 200)
    middle = time.time()
    same(m.call("GET", "/files?path=/root/big")[2] == data, True)
    print(f"# 30 MB up {30 / (middle - begin):.0f} MB/s, down {30 / (time.time() - middle):.0f} MB/s", flush=True)


@check("machine")
def it_idles_without_a_host(m):
    ticks = lambda: sum(map(int, open(f"/proc/{m.process.pid}/stat").read().rsplit(")", 1)[1].split()[11:13]))
    m.call("GET", "/health")
    seen = []
    while len(seen) < 10 and (not seen or seen[-1] > 5):  # what it still had to do may take a while; spinning does not end
        before = ticks()
        time.sleep(2)
        seen.append((ticks() - before) / os.sysconf("SC_CLK_TCK") / 2 * 100)
    print(f"# {seen[-1]:.1f} % of a core while nobody is connected", flush=True)
    if seen[-1] > 5:
        raise AssertionError(f"{seen} % of a core")


@check("machine")
def a_host_that_comes_is_answered_at_once(m):
    times = []
    for _ in range(20):
        time.sleep(0.1)
        begin = time.time()
        same(m.call("GET", "/health")[0], 204)
        times.append(time.time() - begin)
    median = sorted(times)[10]
    print(f"# {median * 1000:.0f} ms from connecting to the answer, with curl's own start", flush=True)
    if median > 2:  # curl and an emulated processor, beside others; one that were asked now and then would need more
        raise AssertionError(f"{median * 1000:.0f} ms")


@check("machine")
def another_identity_is_another_machine(m):
    before = m.sh("cat /proc/sys/kernel/random/boot_id")
    m.epoch = 2
    same(m.init(defaultUser="user", hostname="red", machineId="cd" * 16, timestamp=time.time_ns())[0], 204)
    same(m.sh("cat /proc/sys/kernel/random/boot_id") == before, False)
    same(m.sh("hostname; cat /etc/machine-id; id -un").split(), ["red", "cd" * 16, "user"])


@check("machine")
def services_hear_of_it(m):
    put(m, "/etc/hutch/resume.d/10-note", b"#!/bin/sh\necho heard >/run/heard\n", "&mode=755&username=root")
    put(m, "/etc/hutch/resume.d/20-slow", b"#!/bin/sh\nsleep 60\n", "&mode=755&username=root")
    m.epoch = 3
    begin = time.time()
    same(m.init(defaultUser="root", timestamp=time.time_ns())[0], 204)
    same(m.sh("cat /run/heard"), "heard\n")
    if not 1.5 < time.time() - begin < 40:  # the slow one would take 60 s
        raise AssertionError(f"{time.time() - begin:.1f} s")
    m.ok(F + "Remove", {"path": "/etc/hutch/resume.d/20-slow"})
