"""guest_process.py - checks of the guest agent: process.Process."""
import base64
import hashlib
import os
import time

from guest_lib import ME, P, Skip, check, frame, has, memory, same, until


@check("agent")
def output_and_status(a):
    out, err, end, last = a.run("sh", "-c", "echo out; echo err >&2")
    same((out, err, last), (b"out\n", b"err\n", {}))
    same(end, {"exited": True, "status": "exit status 0"})


@check("agent")
def failure_has_code_and_error(a):
    same(a.run("sh", "-c", "exit 3")[2],
         {"exitCode": 3, "exited": True, "status": "exit status 3", "error": "exit status 3"})


@check("agent")
def a_signal_is_named(a):
    same(a.run("sh", "-c", "kill -9 $$")[2], {"exitCode": -1, "status": "signal: killed", "error": "signal: killed"})
    same(a.run("sh", "-c", "kill -15 $$")[2]["status"], "signal: terminated")


@check("agent")
def a_missing_command_is_not_found(a):
    s = a.start("no-such-command")
    same(s.rest(), [])
    same(s.end["error"], {"code": "not_found",
                          "message": 'exec: "no-such-command": executable file not found in $PATH'})
    s = a.start("/no/such/command")
    s.rest()
    same(s.end["error"]["code"], "not_found")


@check("agent")
def what_may_not_run_is_denied(a):
    s = a.start("/etc/passwd")
    same(s.rest(), [])
    same(s.end["error"]["code"], "permission_denied")


@check("agent")
def a_missing_directory_is_told(a):
    s = a.start("true", process={"cwd": "/no/such/dir"})
    same(s.rest(), [])
    same(s.end["error"], {"code": "invalid_argument", "message": "cwd '/no/such/dir' does not exist"})


@check("agent")
def an_unknown_user_is_told(a):
    auth = "Basic " + base64.b64encode(b"nobody-here:").decode()
    s = a.start("true", headers={"authorization": auth})
    s.rest()
    same(s.end["error"], {"code": "unauthenticated", "message": "invalid username: 'nobody-here'"})
    s = a.start("true", headers={"authorization": "Bearer x"})
    s.rest()
    same(s.end["error"]["code"], "unauthenticated")


@check("agent")
def bad_starts_are_refused(a):
    for bad in ({}, {"process": {}}, {"process": {"cmd": ""}}, {"process": {"cmd": 1}}, {"process": "x"},
                {"process": {"cmd": "true", "args": [1]}}, {"process": {"cmd": "true", "args": "x"}},
                {"process": {"cmd": "true", "envs": {"": "x"}}}, {"process": {"cmd": "true", "envs": {"A": None}}},
                {"process": {"cmd": "true", "cwd": "~root/x"}}, {"process": {"cmd": "true"}, "tag": "t" * 200},
                {"process": {"cmd": "true"}, "pty": {"size": {"cols": -1}}},
                {"process": {"cmd": "true"}, "pty": {"size": {"cols": 70000}}},
                {"process": {"cmd": "true"}, "stdin": "yes"}, {"process": {"cmd": "true"}, "since": -2}):
        s = a.stream(P + "Start", bad)
        same(s.rest(), [], f"messages of {bad}")
        same(s.end["error"]["code"], "invalid_argument", f"{bad}: {s.end}")


@check("agent")
def bad_frames_are_refused(a):
    good = {"process": {"cmd": "true"}}
    for bad, code in ((b"", "invalid_argument"), (b"\0\0", "invalid_argument"), (frame(b"{"), "invalid_argument"),
                      (frame(b"[]"), "invalid_argument"), (frame(good, 1), "unimplemented"),
                      (frame(good, 4), "invalid_argument"), (b"\0\xff\xff\xff\xff{}", "resource_exhausted"),
                      (frame(good) + frame(good), "invalid_argument"), (frame(good)[:-1], "invalid_argument"),
                      (frame(b'{"process":{"cmd":"a\\u0000b"}}'), "invalid_argument"),
                      (frame(b"[" * 5000), "invalid_argument")):
        s = a.stream(P + "Start", bad)
        same(s.rest(), [], f"messages of {bad[:20]}")
        same(s.end["error"]["code"], code, f"code of {bad[:20]}")


@check("agent")
def a_message_has_at_most_16_mib(a):
    for size, code in ((16 << 20, None), ((16 << 20) + 1, "resource_exhausted")):
        head, tail = b'{"process":{"cmd":"true"},"unknown":"', b'"}'
        body = head + b"x" * (size - len(head) - len(tail)) + tail
        s = a.stream(P + "Start", frame(body))
        same((len(s.rest()), (s.end or {}).get("error", {}).get("code")), (2 if code is None else 0, code), f"{size} bytes")


@check("agent")
def packed_messages_are_unimplemented(a):
    same(a.rpc(P + "List", b"\x1f\x8b", content_encoding="gzip"),
         (501, {"code": "unimplemented", "message": "compressed messages are not supported"}))
    same(a.rpc(P + "List", {}, content_encoding="identity")[0], 200)


@check("agent")
def the_last_variable_wins(a):
    out = a.run("env", process={"envs": {"A": "of the request", "HOME": "/x", "C": "=="}})[0].decode().split("\n")
    for line in ("A=of the request", "B=b", "HOME=/x", "C===", "USER=" + ME.pw_name, "LOGNAME=" + ME.pw_name,
                 "E2B_SANDBOX=true"):
        has(out, line)
    same(len([l for l in out if l.startswith("A=")]), 1)


@check("agent")
def a_process_is_set_up_as_promised(a):
    same(a.sh("umask; cat /proc/self/oom_score_adj; nice").split(), ["0022", "100", "0"])
    same(a.sh("pwd", process={"cwd": "/usr/../tmp"}), "/tmp\n")
    same(a.sh("pwd", process={"cwd": "~"}).strip(), os.path.realpath(ME.pw_dir))
    same(a.sh("ls /proc/self/fd | wc -l").strip(), "4")
    same(a.sh("grep SigBlk /proc/self/status").split()[1], "0" * 16)
    same(a.sh('set -- $(cat /proc/self/stat); [ "$5" = "$6" ] && echo leads').strip(), "leads")


@check("agent")
def standard_input(a):
    s = a.start("cat", tag="cat-1")
    pid = s.start()
    a.ok(P + "SendInput", {"process": {"tag": "cat-1"}, "input": {"stdin": base64.b64encode(b"hello").decode()}})
    same(s.until("stdout", b"hello"), b"hello")
    status, answer = a.rpc(P + "SendInput", {"process": {"pid": pid}, "input": {"pty": "eA=="}})
    same((status, answer["code"]), (500, "internal"))
    a.ok(P + "CloseStdin", {"process": {"pid": pid}})
    same(s.rest()[-1]["event"]["end"]["status"], "exit status 0")
    same(a.rpc(P + "SendInput", {"process": {"pid": pid}, "input": {"stdin": "eA=="}})[0], 404)


@check("agent")
def closed_standard_input_is_internal(a):
    s = a.start("sleep", "30", tag="closed")
    s.start()
    a.ok(P + "CloseStdin", {"process": {"tag": "closed"}})
    same(a.rpc(P + "SendInput", {"process": {"tag": "closed"}, "input": {"stdin": "eA=="}})[1]["code"], "internal")
    for bad in ({}, {"input": {}}, {"input": {"stdin": "*"}}, {"input": {"stdin": 1}}):
        same(a.rpc(P + "SendInput", {"process": {"tag": "closed"}, **bad})[0], 400)
    a.ok(P + "SendSignal", {"process": {"tag": "closed"}, "signal": "SIGNAL_SIGKILL"})
    same(s.rest()[-1]["event"]["end"]["status"], "signal: killed")


@check("agent")
def no_standard_input_is_dev_null(a):
    same(a.run("wc", "-c", stdin=False)[0].strip(), b"0")


@check("agent")
def much_input_waits_for_the_process(a):
    data = os.urandom(3 << 20)
    s = a.start("sh", "-c", "sleep 1; sha256sum", tag="much")
    s.start()
    a.ok(P + "SendInput", {"process": {"tag": "much"}, "input": {"stdin": base64.b64encode(data).decode()}})
    a.ok(P + "CloseStdin", {"process": {"tag": "much"}})
    has(s.until("stdout", b"\n").decode(), hashlib.sha256(data).hexdigest())
    s.close()


@check("agent")
def input_streams(a):
    data = os.urandom(5 << 20)
    s = a.start("sh", "-c", "sleep 1; sha256sum", tag="stream")
    s.start()
    body = frame({"start": {"process": {"tag": "stream"}}})
    for at in range(0, len(data), 200000):
        body += frame({"data": {"input": {"stdin": base64.b64encode(data[at:at + 200000]).decode()}}})
        body += frame({"keepalive": {}})
    i = a.stream(P + "StreamInput", body)
    same((i.rest(), i.end), ([{}], {}))
    a.ok(P + "CloseStdin", {"process": {"tag": "stream"}})
    has(s.until("stdout", b"\n").decode(), hashlib.sha256(data).hexdigest())
    s.close()
    for bad, code in ((frame({"data": {}}), "invalid_argument"), (frame({"start": {}}), "invalid_argument"),
                      (frame({"start": {"process": {"pid": 99999999}}}), "not_found"), (b"\1\0\0\0\0", "unimplemented")):
        i = a.stream(P + "StreamInput", bad)
        i.rest()
        same(i.end["error"]["code"], code)


@check("agent")
def terminals(a):
    size = {"pty": {"size": {"cols": 0, "rows": 0}}}
    out = a.run("sh", "-c", "stty size; tty >/dev/null && echo tty", **size)[0]
    same(out, b"24 80\r\ntty\r\n")
    s = a.start("sh", tag="term", pty={"size": {"cols": 100, "rows": 30}})
    s.start()
    a.ok(P + "Update", {"process": {"tag": "term"}, "pty": {"size": {"cols": 132, "rows": 50}}})
    a.ok(P + "SendInput", {"process": {"tag": "term"}, "input": {"pty": base64.b64encode(b"stty size\n").decode()}})
    s.until("pty", b"50 132")
    same(a.rpc(P + "CloseStdin", {"process": {"tag": "term"}})[1]["code"], "invalid_argument")
    same(a.rpc(P + "SendInput", {"process": {"tag": "term"}, "input": {"stdin": "eA=="}})[1]["code"], "internal")
    a.ok(P + "SendInput", {"process": {"tag": "term"}, "input": {"pty": base64.b64encode(b"exit 4\n").decode()}})
    same(s.rest()[-1]["event"]["end"]["exitCode"], 4)
    s = a.start("sleep", "30", tag="plain")
    s.start()
    same(a.rpc(P + "Update", {"process": {"tag": "plain"}, "pty": {"size": {"cols": 1, "rows": 1}}})[0], 400)
    a.ok(P + "SendSignal", {"process": {"tag": "plain"}, "signal": "SIGNAL_SIGTERM"})
    same(s.rest()[-1]["event"]["end"]["status"], "signal: terminated")


def gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX"
    except OSError:
        return True


@check("agent")
def signals_reach_the_group(a):
    s = a.start("sh", "-c", "sleep 1000 & echo $!; wait", tag="group")
    s.start()
    child = int(s.until("stdout", b"\n"))
    a.ok(P + "SendSignal", {"process": {"tag": "group"}, "signal": "SIGNAL_SIGHUP"})
    s.rest()
    until("the child's end", lambda: gone(child))
    s = a.start("sleep", "100", tag="sig")
    s.start()
    for bad in ("SIGNAL_SIGSEGV", "", 3.5, None, 11):
        same(a.rpc(P + "SendSignal", {"process": {"tag": "sig"}, "signal": bad})[0], 400, f"status of {bad}")
    a.ok(P + "SendSignal", {"process": {"tag": "sig"}, "signal": 9})
    s.rest()
    same(a.rpc(P + "SendSignal", {"process": {"tag": "sig"}, "signal": 9})[1]["code"], "not_found")
    for bad in ({}, {"process": {}}, {"process": {"pid": "x"}}, {"process": {"tag": 1}}, {"process": 4}):
        same(a.rpc(P + "SendSignal", {**bad, "signal": 9})[0], 400)


@check("agent")
def processes_are_listed(a):
    same(a.ok(P + "List", {}), {})
    s = a.start("sleep", "50", tag="listed", process={"envs": {"X": "y"}, "cwd": "/tmp"})
    pid = s.start()
    config = {"cmd": "sleep", "args": ["50"], "envs": {"X": "y"}, "cwd": "/tmp"}
    same(a.ok(P + "List", {}), {"processes": [{"config": config, "pid": pid, "tag": "listed"}]})
    t = a.start("true", tag="listed")
    t.rest()
    same(t.end["error"]["code"], "already_exists")
    a.ok(P + "SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    s.rest()
    same(a.ok(P + "List", {}), {})
    mine = [p for p in a.ok(P + "List", {"all": True})["processes"] if p["pid"] == pid][0]
    same((mine["state"], mine["exitCode"], mine["signal"]), ("ended", -1, 9))
    time.strptime(mine["startedAt"][:19], "%Y-%m-%dT%H:%M:%S")


@check("agent")
def a_client_that_leaves_kills_nothing(a):
    s = a.start("sh", "-c", "read x; echo done", tag="left")
    pid = s.start()
    s.close()
    time.sleep(0.5)
    same([p["pid"] for p in a.ok(P + "List", {})["processes"]], [pid])
    c = a.stream(P + "Connect", {"process": {"tag": "left"}})
    same(c.start(), pid)
    a.ok(P + "SendInput", {"process": {"tag": "left"}, "input": {"stdin": base64.b64encode(b"\n").decode()}})
    c.until("stdout", b"done")
    same(c.rest()[-1]["event"]["end"]["exited"], True)


@check("agent")
def output_is_replayed(a):
    s = a.start("sh", "-c", "echo one; echo two >&2; echo three", tag="replay", since=0)
    pid = s.start()
    seen = s.rest()
    same([int(m["event"]["data"]["seq"]) for m in seen[:-1]][-1], 14)
    c = a.stream(P + "Connect", {"process": {"pid": pid}, "since": 4})
    c.start()
    got = b"".join(base64.b64decode(m["event"]["data"].get("stdout") or m["event"]["data"].get("stderr"))
                   for m in c.rest()[:-1])
    same(sorted(got.split()), [b"three", b"two"])
    c = a.stream(P + "Connect", {"process": {"pid": pid}})
    same([list(m["event"]) for m in c.rest()], [["start"], ["end"]])
    c = a.stream(P + "Connect", {"process": {"pid": pid}, "since": "999"})
    c.rest()
    same(c.end["error"]["code"], "invalid_argument")
    c = a.stream(P + "Connect", {"process": {"tag": "nobody"}})
    c.rest()
    same(c.end["error"]["code"], "not_found")


@check("agent")
def the_ended_are_forgotten_in_their_order(a):
    s = a.start("sleep", "30", tag="long")
    pid = s.start()
    for at in range(0, 280, 20):
        for t in [a.start("true") for _ in range(20)]:
            t.rest()
    a.ok(P + "SendSignal", {"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})
    s.rest()
    for _ in range(600):  # the last ones' turn comes when the loop has told their ends
        ended = a.ok(P + "List", {"all": True})["processes"]
        if len(ended) == 256:
            break
        time.sleep(0.1)
    same(len(ended), 256)
    has([p["pid"] for p in ended], pid)


@check("agent")
def an_end_tells_its_signal_to_those_who_ask(a):
    s = a.start("sh", "-c", "kill -9 $$", since=0)
    same(s.rest()[-1]["event"]["end"]["signal"], 9)


@check("agent")
def deadlines_kill(a):
    begin = time.time()
    s = a.start("sh", "-c", "sleep 100 & sleep 100", headers={"connect-timeout-ms": "2000"}, tag="dead")
    pid = s.start()
    same(s.rest(), [])
    same(s.end["error"]["code"], "deadline_exceeded")
    if not 1.9 < time.time() - begin < 60:  # without the deadline they would take 100 s
        raise AssertionError("at the wrong time")
    until("its end", lambda: a.ok(P + "List", {}) == {})
    has([(p["pid"], p["signal"]) for p in a.ok(P + "List", {"all": True})["processes"] if "signal" in p], (pid, 9))
    s = a.start("true", headers={"connect-timeout-ms": "soon"})
    s.rest()
    same(s.end["error"]["code"], "invalid_argument")


@check("agent")
def a_viewers_deadline_kills_nothing(a):
    s = a.start("cat", tag="viewed")
    s.start()
    c = a.stream(P + "Connect", {"process": {"tag": "viewed"}}, connect_timeout_ms="200")
    c.rest()
    same(c.end["error"]["code"], "deadline_exceeded")
    a.ok(P + "CloseStdin", {"process": {"tag": "viewed"}})
    same(s.rest()[-1]["event"]["end"]["status"], "exit status 0")


@check("agent")
def silence_is_broken(a):
    s = a.start("cat", headers={"keepalive-ping-interval": "1"}, tag="silent")
    s.start()
    same(s.message(), {"event": {"keepalive": {}}})
    a.ok(P + "CloseStdin", {"process": {"tag": "silent"}})
    s.rest()


@check("agent")
def children_do_not_hold_the_end(a):
    begin = time.time()
    out, _, end, _ = a.run("sh", "-c", "sleep 100 & echo early")
    same((out, end["status"]), (b"early\n", "exit status 0"))
    if time.time() - begin > 50:
        raise AssertionError(f"{time.time() - begin:.1f} s")


@check("agent")
def much_output_arrives_whole(a):
    out, _, end, _ = a.run("sh", "-c", "head -c 20000000 /dev/zero | tr '\\0' x; exit 7")
    same((len(out), set(out), end["exitCode"]), (20000000, {120}, 7))


@check("agent")
def messages_have_their_sizes(a):
    for more, kind, most in (({}, "stdout", 32768), ({"pty": {"size": {}}}, "pty", 16384)):
        for m in a.start("head", "-c", "300000", "/dev/zero", **more).rest():
            if len(base64.b64decode(m["event"].get("data", {}).get(kind, ""))) > most:
                raise AssertionError("a message is too large")


@check("agent")
def a_slow_starter_slows_the_process(a):
    s = a.start("sh", "-c", "head -c 30000000 /dev/zero; echo END >&2", tag="slow")
    before = memory(a)
    s.start()
    time.sleep(1)
    same([p["tag"] for p in a.ok(P + "List", {})["processes"]], ["slow"])
    grown = memory(a) - before
    got = b""
    for m in s.rest():
        got += base64.b64decode(m["event"].get("data", {}).get("stdout", ""))
    same(len(got), 30000000)
    print(f"# a starter who takes nothing: {grown / (1 << 20):.0f} MB")
    if grown > 25 << 20:  # with what a sanitizer keeps of it, less than it would take to hold the output
        raise AssertionError(f"the agent took {grown >> 20} MiB")


@check("agent")
def a_slow_viewer_sees_gaps_and_slows_nobody(a):
    s = a.start("sh", "-c", "sleep 0.5; head -c 12000000 /dev/zero; echo LAST", tag="seen")
    s.start()
    c = a.stream(P + "Connect", {"process": {"tag": "seen"}, "since": 0})
    c.start()
    begin = time.time()
    s.rest()
    if time.time() - begin > 100:  # who waits for a viewer that does not read waits for ever
        raise AssertionError("it was slowed")
    at, gaps, got = 0, 0, b""
    for m in c.rest():
        event = m["event"]
        if "gap" in event:
            same(int(event["gap"]["from"]), at, "the gap's beginning")
            at, gaps = int(event["gap"]["to"]), gaps + 1
        elif "data" in event:
            got = base64.b64decode(event["data"]["stdout"])
            at += len(got)
            same(int(event["data"]["seq"]), at, "seq")
    same((at, got[-5:]), (12000005, b"LAST\n"))
    if not gaps:
        raise Skip("the viewer kept up")


@check("agent")
def many_at_once(a):
    streams = [a.start("sh", "-c", f"sleep 0.2; echo {n}") for n in range(40)]
    for n, s in enumerate(streams):
        has(s.until("stdout", b"\n").decode(), str(n))
        s.close()
