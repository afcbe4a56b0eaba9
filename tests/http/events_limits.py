#!/usr/bin/env python3
"""events_limits.py - limits that hold over all processes of the gateway: who listens to live events, counted in Redis.

Which process takes a connection is decided here by stopping the others for a moment.
"""
import os
import signal
import sys
import time

sys.dont_write_bytecode = True
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))
import events  # noqa: E402
from events import Feed, Person, R, alone, held, refusal, wire  # noqa: E402
from people_house import wait_for  # noqa: E402

HOUSE = None


def processes():
    """The gateway's processes, without its master."""
    with open("/proc/%d/task/%d/children" % (HOUSE.gateway.pid, HOUSE.gateway.pid)) as f:
        return sorted(int(p) for p in f.read().split())


def at(pid, person, n):
    """n sockets of one process; those that are refused are closed."""
    others = [p for p in processes() if p != pid]
    for p in others:
        os.kill(p, signal.SIGSTOP)
    try:
        return [person.socket() for _ in range(n)]
    finally:
        for p in others:
            os.kill(p, signal.SIGCONT)


def codes(sockets):
    return [refusal(ws) for ws in sockets]


def cut(sockets):
    for ws in sockets:
        ws.s.close()


def check_both(ada):
    one, two = processes()
    a = at(one, ada, 6)
    b = at(two, ada, 4)
    R.check("ten of a user, on two processes", codes(a + b) == [None] * 10 and held(ada) == [4, 6], held(ada))
    R.check("the 11th is refused by both", codes(at(one, ada, 1) + at(two, ada, 1)) == [4429, 4429])
    s = ada.stream("?topics=team")
    R.check("SSE: 429", s.status == 429, s.head)
    a.pop().s.close()
    R.check("one that leaves makes room for one, elsewhere", wait_for(lambda: held(ada) == [4, 5], 30) and codes(at(two, ada, 1)) == [None], held(ada))
    s.s.close()
    cut(a + b)
    R.check("and nothing is left when all have gone", wait_for(lambda: held(ada) == [], 30), held(ada))


def check_killed(ada):
    one, two = processes()
    a, b = at(one, ada, 8), at(two, ada, 2)
    R.check("again ten", codes(a + b) == [None] * 10, held(ada))
    os.kill(one, signal.SIGKILL)
    begin = time.time()
    assert wait_for(lambda: len(processes()) == 2 and one not in processes(), 60)
    R.check("what a killed process had counts for a while", codes(at(two, ada, 1)) == [4429])

    def room():
        s = at(two, ada, 1)
        if codes(s) == [None]:
            b.extend(s)
            return True
        return False
    R.check("and comes back within 30 s, on a busy machine 60", wait_for(room, 60, 1.0), time.time() - begin)
    print("# after %.0f s" % (time.time() - begin))
    R.check("all of it", codes(at(two, ada, 8)) == [None] * 7 + [4429], held(ada))
    cut(b)


def check_forgotten(ada):
    one, two = processes()
    a = at(one, ada, 9)
    R.check("nine", codes(a) == [None] * 9)
    HOUSE.redis_cli("FLUSHALL")
    R.check("what Redis forgot is told again", wait_for(lambda: held(ada) == [9], 30), held(ada))
    b = at(two, ada, 2)
    R.check("and counts", codes(b) == [None, 4429])
    cut(a + b)


def check_away(ada):
    one, two = processes()
    a = at(one, ada, 2)
    HOUSE.stop_redis()
    b = at(one, ada, 9)
    R.check("without Redis each process counts for itself", codes(b) == [None] * 8 + [4429])
    R.check("only", codes(at(two, ada, 1)) == [None])
    a.pop().s.close()
    HOUSE.start_redis()
    R.check("with it again all is known", wait_for(lambda: held(ada) == [9], 30), held(ada))
    c = at(two, ada, 2)
    R.check("and holds", codes(c) == [None, 4429])
    cut(a + b + c)


def check_team(ada):
    """200 of a team: eleven people would be needed; the rest are written into Redis by a process that lives."""
    team = "hutch:held:events:" + wire("team-", ada.team)
    assert wait_for(lambda: HOUSE.redis_cli("HLEN", team) == "0", 30)
    HOUSE.redis_cli("ZADD", "hutch:gates", int(time.time()) + 60, "another")
    HOUSE.redis_cli("HSET", team, "another", 199)
    a = ada.socket()  # one after the other: they may be at two processes, which need not ask Redis in this order
    R.check("200 of a team, wherever they are", codes([a]) == [None] and codes([ada.socket()]) == [4429])
    HOUSE.redis_cli("ZREM", "hutch:gates", "another")
    b = ada.socket()
    R.check("processes that have ended do not count", codes([b]) == [None] and "another" not in HOUSE.redis_cli("HKEYS", team))
    cut([a, b])


def check_ended(ada):
    one, two = processes()
    a = at(one, ada, 10)
    R.check("ten more", codes(a) == [None] * 10)
    HOUSE.stop_gateway()
    R.check("a process that ends takes its sign of life away", HOUSE.redis_cli("ZCARD", "hutch:gates") == "0", HOUSE.redis_cli("ZRANGE", "hutch:gates", 0, -1))
    HOUSE.start_gateway()
    b = [ada.socket() for _ in range(10)]
    R.check("and after a restart there is room at once", codes(b) == [None] * 10)
    cut(b)


def main():
    global HOUSE
    if not os.path.exists(events.GATEWAY):
        print("skip events_limits: needs %s\n0 passed, 0 failed, 1 skipped" % events.GATEWAY)
        return 0
    HOUSE = events.HOUSE = Feed(processes=2)
    ada = Person("ada")
    assert wait_for(lambda: len(processes()) == 2, 60)
    only = sys.argv[1:]
    for check, args in ((check_both, (ada,)), (check_forgotten, (ada,)), (check_away, (ada,)), (check_team, (ada,)),
                        (check_killed, (ada,)), (check_ended, (ada,))):
        if only and check.__name__[6:] not in only:
            continue
        try:
            alone(ada)
            check(*args)
        except (AssertionError, OSError, EOFError, events.Closed, RuntimeError, IndexError) as e:
            R.check(check.__name__[6:], False, "line %d: %s %s" % (e.__traceback__.tb_next.tb_lineno, type(e).__name__, e))
    R.check("no complaints of the programs", not HOUSE.complaints(), HOUSE.complaints()[:3])
    return R.end()


if __name__ == "__main__":
    sys.exit(main())
