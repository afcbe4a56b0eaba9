#!/usr/bin/env python3
"""guest_test.py - the guest agent against its protocol, without a machine and then in a real one.

    guest_test.py [--agent PROGRAM] [--images DIR] [--only WORD]

PROGRAM is hutch-guest-test. DIR is images/build's OUTDIR; without it, or without QEMU, the checks in
a machine are skipped. Standard library and curl only. A line per check; status 1 when one failed.
"""
import argparse
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time

from guest_lib import CHECKS, Agent, Skip
# The order of the checks is that of these lines.
import guest_init  # noqa: F401
import guest_process  # noqa: F401
import guest_files  # noqa: F401
import guest_files2  # noqa: F401
import guest_filesystem  # noqa: F401
import guest_watch  # noqa: F401
import guest_ports  # noqa: F401
import guest_bounds  # noqa: F401
import guest_front  # noqa: F401
import guest_session  # noqa: F401
import guest_machine  # noqa: F401
import guest_hosts  # noqa: F401

def agent_start(program, folder):
    a = Agent(folder + "/agent.sock")
    a.dir = folder
    # what a sanitizer keeps of freed memory is in the sizes that checks look at
    options = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "quarantine_size_mb=16")))
    a.process = subprocess.Popen([program, "--listen-unix", a.path], stderr=open(folder + "/agent.log", "wb"),
                                 env=dict(os.environ, ASAN_OPTIONS=options))
    for _ in range(1200):
        if os.path.exists(a.path):
            return a
        time.sleep(0.05)
    sys.exit("guest_test.py: the agent did not start")


def tsc_khz():
    for line in open("/proc/cpuinfo"):
        if line.startswith("cpu MHz"):
            return int(float(line.split(":")[1]) * 1000)
    return 2000000


def machine_start(images, folder):
    t = os.path.realpath(images + "/minimal")
    m = Agent(folder + "/port.sock")
    disk = folder + "/disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", t + "/upper.qcow2", disk, "8G"],
                   check=True)
    append = (f"console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz={tsc_khz()} tsc=reliable mitigations=off nokaslr "
              "lsm=none apparmor=0 audit=0 cryptomgr.notests groot=/dev/vdb glower=/dev/vda")
    m.begin = time.time()
    # no -no-reboot: a kernel that measured its timer wrong, as this machine was busy just then, starts anew
    m.process = subprocess.Popen(
        ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none",
         "-M", "microvm,x-option-roms=off,rtc=on,pic=off,pit=off", "-cpu", "max", "-accel", "tcg,thread=multi",
         "-m", "512", "-smp", "1", "-global", "virtio-mmio.force-legacy=false",
         "-kernel", t + "/vmlinux", "-initrd", t + "/initramfs.cpio", "-append", append,
         "-blockdev", f"driver=raw,node-name=d0,read-only=on,file.driver=file,file.filename={t}/rootfs.erofs",
         "-device", "virtio-blk-device,drive=d0",
         "-blockdev", f"driver=qcow2,node-name=d1,file.driver=file,file.filename={disk}",
         "-device", "virtio-blk-device,drive=d1",
         "-chardev", f"socket,id=port,path={m.path},server=on,wait=off", "-device", "virtio-serial-device",
         "-device", "virtserialport,chardev=port,name=hutch.0", "-device", "virtio-rng-device",
         "-netdev", "user,id=n0,restrict=on", "-device", "virtio-net-device,netdev=n0",
         "-serial", f"file:{folder}/serial.log"], stdin=subprocess.DEVNULL, stderr=open(folder + "/qemu.log", "wb"))
    return m


def run(checks, target, tally):
    for function in checks:
        name = function.__name__.replace("_", " ")
        try:
            function(target)
        except Skip as why:
            tally["skipped"] += 1
            print(f"skip {name}: {why}", flush=True)
        except Exception as why:  # whatever it is, the next check has its turn
            tally["failed"] += 1
            print(f"not ok {name}: {type(why).__name__}: {why}", flush=True)
        else:
            tally["passed"] += 1
            print(f"ok {name}", flush=True)


def agent_part(options, checks, folder, tally):
    a = agent_start(options.agent, folder)
    run(checks, a, tally)
    a.process.send_signal(signal.SIGTERM)
    status = a.process.wait(60)
    log = open(folder + "/agent.log", errors="replace").read()
    if status or "Sanitizer" in log or "runtime error" in log:
        tally["failed"] += 1
        print(f"not ok the agent ends well: status {status}\n{log[-4000:]}")
    else:
        tally["passed"] += 1
        print("ok the agent ends well")


def machine_part(options, checks, folder, tally):
    if not options.images or not os.path.exists(options.images + "/minimal/template.json"):
        why = "no images (--images DIR)"
    elif not shutil.which("qemu-system-x86_64") or not shutil.which("qemu-img"):
        why = "no QEMU"
    else:
        m = machine_start(options.images, folder)
        try:
            run(checks, m, tally)
            if tally["failed"]:
                print("# " + open(folder + "/serial.log", errors="replace").read()[-1500:].replace("\n", "\n# "))
        finally:
            m.process.kill()
            m.process.wait()
        return
    tally["skipped"] += len(checks)
    print(f"skip all checks in a machine: {why}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--agent", default=os.environ.get("HUTCH_GUEST_TEST", "guestagent/hutch-guest-test"))
    parser.add_argument("--images", default=os.environ.get("HUTCH_IMAGES", ""))
    parser.add_argument("--only", default="", help="checks whose name has this word, and those that begin a part")
    parser.add_argument("--part", default="agent,machine")
    options = parser.parse_args()
    tally = {"passed": 0, "failed": 0, "skipped": 0}
    first = ("init_opens_the_agent", "it_boots", "init_gives_it_an_identity")
    wanted = [(w, f) for w, f in CHECKS if options.only in f.__name__ or f.__name__ in first]
    # A machine is first booted and given an identity.
    wanted.sort(key=lambda row: row[0] == "machine" and row[1].__module__ != "guest_machine")
    with tempfile.TemporaryDirectory(prefix="guest-test.") as folder:
        for part, run_part in (("agent", agent_part), ("machine", machine_part)):
            if part in options.part:
                run_part(options, [f for w, f in wanted if w == part], folder, tally)
    print("{passed} passed, {failed} failed, {skipped} skipped".format(**tally))
    sys.exit(1 if tally["failed"] else 0)


if __name__ == "__main__":
    main()
