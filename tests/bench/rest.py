"""rest - what it costs to do nothing: memory and CPU of every process, and of idle capsules."""
import time

from instance import CONTROL, PARTS, Cpu, pss
from table import show


def rest(inst, args):
    """Each part, then what an idle capsule adds. Returns the control plane's MB."""
    inst.wait_pool(inst.pool_size)
    time.sleep(3)
    groups = {p: inst.pids(p) for p in (*PARTS, "machines")}
    idle = Cpu(groups)
    time.sleep(args.idle)
    spent = {p: v / 1e4 for p, v in idle.spent(args.idle).items()}
    rows = [[name, len(pids), pss(pids), spent[name]] for name, pids in groups.items()]
    control = [r for r in rows if r[0] in CONTROL]
    rows.append(["control plane (%s)" % ", ".join(CONTROL), *(sum(r[i] for r in control) for i in (1, 2, 3))])
    rows.append(capsules_at_rest(inst, args))
    show("At rest (%d s; machines: the clones that wait)" % args.idle, ["", "processes", "PSS MB", "% of a CPU"], rows)
    return sum(r[2] for r in control)


def capsules_at_rest(inst, args, number=4):
    """The machines of capsules that do nothing, one by one."""
    made = [inst.capsule() for _ in range(number)]
    try:
        for capsule in made:
            inst.execute(capsule)
        inst.wait_pool(inst.pool_size)
        time.sleep(10)
        mine = {"capsules": sorted(inst.pids("machines"), key=started)[:number]}
        idle = Cpu(mine)
        time.sleep(args.idle)
        return ["an idle capsule (QEMU), of %d" % number, 1, pss(mine["capsules"]) / number,
                idle.spent(args.idle)["capsules"] / 1e4 / number]
    finally:
        for capsule in made:
            inst.destroy(capsule)


def started(pid):
    """In ticks since boot."""
    with open("/proc/%d/stat" % pid, encoding="ascii") as f:
        return int(f.read().rsplit(") ", 1)[1].split()[19])
