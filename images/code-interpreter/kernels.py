"""kernels.py - the processes that run code: what goes to them, and what comes from them, in order."""
import codecs
import json
import os
import queue
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ENV_FILE = "/var/lib/code-interpreter/env"  # written by the resume script: the capsule's own variables
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
CHUNK = 65536
WAITING = 256  # messages that wait for a slow client; then the kernel waits, too


class CapsuleEnv:
    """The capsule's variables, as they were when it was last told who it is."""

    def __init__(self):
        self.stamp, self.value = None, {}

    def look(self):
        """The variables, and a stamp that changes with each start, wake and fork."""
        try:
            with open(ENV_FILE, "rb") as f:
                s = os.fstat(f.fileno())
                stamp = (s.st_ino, s.st_mtime_ns)
                if stamp != self.stamp:
                    pairs = [p.partition(b"=") for p in f.read().split(b"\0") if b"=" in p]
                    self.value = {os.fsdecode(k): os.fsdecode(v) for k, _, v in pairs
                                  if VARIABLE.fullmatch(os.fsdecode(k)) and k not in
                                  (b"PATH", b"HOME", b"PWD", b"SHLVL", b"TERM", b"_", b"OLDPWD")}
                    self.stamp = stamp
        except OSError:
            pass
        return self.stamp, dict(self.value)


CAPSULE = CapsuleEnv()


class Kernel:
    """A process with its outputs; a thread reads them whether somebody listens or not."""

    def __init__(self, argv, cwd):
        self.stamp, self.known = CAPSULE.look()
        to_read, self.requests = os.pipe()
        self.control, to_write = os.pipe()
        self.process = subprocess.Popen(
            [*argv, str(to_read), str(to_write)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, pass_fds=(to_read, to_write), start_new_session=True,
            env={**os.environ, **self.known})
        os.close(to_read)
        os.close(to_write)
        self.lock = threading.Lock()
        self.listener, self.count, self.ended, self.partial = None, 0, False, b""
        threading.Thread(target=self.read, daemon=True).start()

    def alive(self):
        return not self.ended and self.process.poll() is None

    def end(self):
        """It and what it started; the thread sees the ends of its pipes and says so to who listens."""
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except OSError:
            pass
        self.process.kill()
        self.process.wait()

    def news(self):
        """What changed in the capsule's variables since the kernel was last told: (set, removed) or None."""
        stamp, now = CAPSULE.look()
        if stamp == self.stamp:
            return None
        gone = [k for k in self.known if k not in now]
        self.stamp, self.known = stamp, now
        return now, gone

    def run(self, code, env, silent):
        """Yields the messages of one execution; the last one is end_of_execution."""
        said = queue.Queue(WAITING)
        with self.lock:
            if self.ended:
                yield from self.last_words()
                return
            self.listener = said
            self.count += 0 if silent else 1
            try:
                self.write(self.encode(code, env, self.news()))
            except OSError:
                pass  # it has just died: the thread says so
        count = self.count
        while True:
            message = said.get()
            if message["type"] == "end_of_execution":
                break
            yield message
        yield {"type": "number_of_executions", "execution_count": count}
        yield {"type": "end_of_execution"}

    def write(self, data):
        while data:
            data = data[os.write(self.requests, data):]

    @staticmethod
    def last_words():
        yield {"type": "error", "name": "KernelDied", "value": "the kernel has ended; its variables are lost",
               "traceback": ""}
        yield {"type": "end_of_execution"}

    def say(self, message):
        listener = self.listener
        if listener:
            listener.put(message)

    def read(self):
        """The thread: what was written before a control message is told before it."""
        # Its children may hold its pipes: the end of the process is an event of its own.
        outputs, death = {}, os.pidfd_open(self.process.pid)
        for name, pipe in (("stdout", self.process.stdout), ("stderr", self.process.stderr)):
            os.set_blocking(pipe.fileno(), False)
            outputs[pipe.fileno()] = (name, codecs.getincrementaldecoder("utf-8")("replace"))
        with selectors.DefaultSelector() as wait:
            for fd in (*outputs, self.control, death):
                wait.register(fd, selectors.EVENT_READ)
            while True:
                ready = [key.fd for key, _ in wait.select()]
                control = os.read(self.control, CHUNK) if self.control in ready else None
                if death in ready and control is None:
                    control = b""
                for fd in list(outputs) if control is not None else [f for f in ready if f in outputs]:
                    if not self.drain(fd, *outputs[fd], all_of_it=control is not None):
                        wait.unregister(fd)
                        del outputs[fd]
                if control == b"":
                    break
                for message in self.decode(control or b""):
                    self.say(message)
                    if message["type"] == "end_of_execution":
                        self.listener = None
        os.close(death)
        self.died()

    def drain(self, fd, name, decoder, all_of_it):
        """Tells what is there; False at its end."""
        while True:
            try:
                data = os.read(fd, CHUNK)
            except BlockingIOError:
                return True
            words = decoder.decode(data, not data)
            if words:
                self.say({"type": name, "text": words, "timestamp": time.time_ns()})
            if not data or not all_of_it:
                return bool(data)

    def died(self):
        with self.lock:
            self.ended = True
            listener, self.listener = self.listener, None
            os.close(self.control)
            os.close(self.requests)
        self.end()
        self.process.stdout.close()
        self.process.stderr.close()
        if listener:
            for message in self.last_words():
                listener.put(message)


class Python(Kernel):
    """kernel.py: requests and messages are lines of JSON."""

    def __init__(self, cwd):
        super().__init__([sys.executable, os.path.join(HERE, "kernel.py")], cwd)

    @staticmethod
    def encode(code, env, news):
        return json.dumps({"code": code, "env": env, "news": news}).encode() + b"\n"

    def decode(self, data):
        *lines, self.partial = (self.partial + data).split(b"\n")
        for line in lines:
            yield json.loads(line)


BASH = """
exec 60<&"$0" 61>&"$1"
eval "exec $0<&- $1>&-"
while IFS= read -r -d '' -u 60 __code; do
	eval "$__code" 60<&- 61>&-
	printf '%d\\0' "$?" >&61
done
"""


class Bash(Kernel):
    """A bash that evaluates what it is given, and tells the status."""

    def __init__(self, cwd):
        self.due = []
        super().__init__(["/bin/bash", "-c", BASH], cwd)

    def encode(self, code, env, news):
        before, after = [], []
        for name in news[1] if news else []:
            before.append("unset %s" % name)
        for name, value in (news[0] if news else {}).items():
            before.append("export %s=%s" % (name, shlex.quote(value)))
        for name, value in env.items():
            before.append("[ -z \"${%s+x}\" ] || __was_%s=$%s; export %s=%s" % (name, name, name, name, shlex.quote(value)))
            after.append("if [ -n \"${__was_%s+x}\" ]; then export %s=$__was_%s; unset __was_%s; else unset %s; fi"
                         % (name, name, name, name, name))
        parts = ["\n".join(before), code.replace("\0", ""), "\n".join(after)]
        self.due = ["before", "code", "after"]
        return b"".join(p.encode("utf-8", "replace") + b"\0" for p in parts)

    def decode(self, data):
        *numbers, self.partial = (self.partial + data).split(b"\0")
        for number in numbers:
            part = self.due.pop(0) if self.due else ""
            if part == "code" and number != b"0":
                yield {"type": "error", "name": "ExitStatus", "value": number.decode(), "traceback": ""}
            elif part == "after":
                yield {"type": "end_of_execution"}


# A language is here when what runs it is.
LANGUAGES = {"python": Python}
if shutil.which("bash"):
    LANGUAGES["bash"] = Bash


def start(language, cwd):
    return LANGUAGES[language](cwd)
