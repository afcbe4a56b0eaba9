#!/usr/bin/env python3
"""engine_boot_test.py - what becomes of a disk whose machine is gone: cold boots in place, disks that are sealed.

usage: engine_boot_test.py AGENT IMAGE_DIR [TEST...]     (a hutch-agent binary of a DEV build)
"""
import glob, os, re, shutil, signal, subprocess, sys, threading, time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from engine_lib import Agent, main, new_id, wait_for

agent = Agent(sys.argv[1], sys.argv[2], 65200)
COLD = {'boot': 'cold'}


def make(**more):
    cid = new_id()
    status, got = agent.put(cid, **more)
    assert status == 200, (status, got)
    return cid


def kill_vm(cid):
    os.kill(agent.vm_of(cid), signal.SIGKILL)
    wait_for('the error', lambda: agent.get(cid)['state'] == 'error')


def resume_cold(cid, epoch, **more):
    return agent.post(cid, 'resume', epoch, agent.spec(epoch, boot='cold', **more))


def test_cold_boot_after_the_end():
    cid = make()
    agent.run(cid, 'echo kept >/root/k; echo lost >/dev/shm/m; sync')
    kill_vm(cid)
    assert agent.get(cid)['exit']['signal'] == 9, agent.get(cid)
    status, got = agent.post(cid, 'resume', 2)
    assert status == 409 and 'cold' in got['error']['message'], (status, got)
    status, got = agent.post(cid, 'resume', 2, COLD)
    assert status == 400 and 'access_token' in got['error']['message'], (status, got)
    status, got = resume_cold(cid, 0)
    assert status == 409 and got['error']['code'] == 'stale_epoch', (status, got)
    assert agent.get(cid)['state'] == 'error'
    status, got = resume_cold(cid, 2, memory_mb=320, disk_size_mb=6144)
    assert status == 200 and got['state'] == 'running' and got['start_mode'] == 'cold' and got['epoch'] == 2, (status, got)
    print('# cold boot of a kept disk: %d ms' % got['took_ms'])
    here = agent.get(cid)
    assert 'exit' not in here and 'error' not in here and here['memory_mb'] == 320 and here['disk_size_mb'] == 6144, here
    assert agent.run(cid, 'cat /root/k; ls /dev/shm/m 2>/dev/null | wc -l; echo $GREETING') == 'kept\n0\nhello\n'
    assert int(agent.run(cid, 'df -m / | tail -1').split()[1]) > 5500
    assert resume_cold(cid, 2)[0] == 200     # is so already
    # with an agent that came later, too
    agent.restart()
    kill_vm(cid)
    agent.restart()
    assert agent.get(cid)['state'] == 'error'
    assert resume_cold(cid, 3)[0] == 200 and agent.run(cid, 'cat /root/k') == 'kept\n'
    assert agent.delete(cid)[0] == 204


def test_a_timer_measured_wrong():
    """The host stands still while the kernel measures its timer, again and again: it starts anew until that is right."""
    cid, answer = new_id(), []
    agent.restart()     # for a log of its own
    seen = len(agent.log())
    began = threading.Thread(target=lambda: answer.append(agent.put(cid, boot='cold')), daemon=True)
    began.start()
    pid = next(iter(wait_for('QEMU', agent.qemus, 60).values()))
    end = time.monotonic() + 100
    while 'starts anew' not in agent.log()[seen:] and not answer and time.monotonic() < end:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(0.12)
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.06)
    assert 'starts anew' in agent.log()[seen:], answer
    began.join()
    assert answer[0][0] == 200, answer
    # nanoseconds that fit into 31 bits of a sixteenth of a gigahertz
    ns = int(agent.run(cid, "sed -n 's/ *max_delta_ns: *//p' /proc/timer_list | tail -1"))
    assert 0.5 <= 34359738352 / ns <= 1.05, ns
    assert agent.run(cid, 'sleep 0.1; echo slept') == 'slept\n'
    assert agent.delete(cid)[0] == 204


def launcher():
    for path in glob.glob('/proc/[0-9]*'):
        try:
            with open(path + '/comm') as name, open(path + '/cmdline') as words:
                if name.read() == 'hutch-priv\n' and agent.dir in words.read():
                    return int(path.split('/')[2])
        except OSError:
            continue
    raise AssertionError('there is no launcher')


def test_how_it_ended_is_said_late():
    """The launcher, whose child it was, is slow to say how it ended: the agent, who sees the end first, waits for that."""
    cid, slow = make(), launcher()
    wait_for('the image that is made behind it', lambda: any(p['image'] == 'ready' for p in agent.pools().values()))
    wait_for('its end', lambda: list(agent.qemus().values()) == [agent.vm_of(cid)])
    os.kill(slow, signal.SIGSTOP)     # nobody asks it for anything now
    try:
        os.kill(agent.vm_of(cid), signal.SIGKILL)
        time.sleep(0.5)
    finally:
        os.kill(slow, signal.SIGCONT)
    wait_for('the error', lambda: agent.get(cid)['state'] == 'error')
    assert agent.get(cid)['exit']['signal'] == 9, agent.get(cid)
    assert agent.delete(cid)[0] == 204


class Stall:
    """A disk that stalls: the agent's fdatasync() takes a minute, or until this ends."""
    def __enter__(self):
        pid = agent.process.pid
        self.tracer = subprocess.Popen(['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=fdatasync',
                                        '-e', 'inject=fdatasync:delay_enter=60000000', '-p', str(pid)])

        def traced():
            return all('TracerPid:\t%d\n' % self.tracer.pid in open(path).read() for path in glob.glob('/proc/%d/task/*/status' % pid))
        wait_for('strace', lambda: traced() or self.tracer.poll() is not None)
        return self

    def __exit__(self, *_):
        self.tracer.send_signal(signal.SIGINT)
        self.tracer.wait()


def test_the_end_while_a_record_is_written():
    """The disk stalls while a pause is written down, and QEMU ends meanwhile: the next step meets a dead machine, the agent lives."""
    cid, answer = make(), []
    pid = agent.vm_of(cid)
    asked = threading.Thread(target=lambda: answer.append(agent.post(cid, 'pause')), daemon=True)
    with Stall():
        asked.start()
        wait_for('the pause', lambda: agent.get(cid)['state'] == 'pausing')
        os.kill(pid, signal.SIGKILL)
        wait_for('what the log says of it', lambda: 'QEMU (pid %d) ended' % pid in agent.log())
        assert agent.get(cid)['state'] == 'pausing'
    asked.join()
    assert agent.process.poll() is None and answer[0][0] >= 500, answer
    wait_for('the error', lambda: agent.get(cid)['state'] == 'error')
    assert agent.get(cid)['exit']['signal'] == 9, agent.get(cid)
    assert resume_cold(cid, 2)[0] == 200
    assert agent.delete(cid)[0] == 204


def test_disk_of_an_ended_one_is_sealed():
    cid = make()
    agent.run(cid, 'echo kept >/root/k; sync')
    kill_vm(cid)
    status, got = agent.post(cid, 'hibernate', 1)
    assert status == 409 and 'disk' in got['error']['message'], (status, got)
    status, h = agent.post(cid, 'hibernate', 1, {'memory': False})
    assert status == 200 and h['state'] == 'hibernated' and h['memory'] is None and h['disk'], (status, h)
    wait_for('no folder', lambda: not os.listdir(agent.state + '/vm'))     # but that of an image in the making, for a while
    status, got = agent.put(cid, 2, image={'memory': None, 'disk': h['disk']})
    assert status == 200 and agent.run(cid, 'cat /root/k') == 'kept\n', (status, got)
    assert agent.delete(cid)[0] == 204


def test_no_disk():
    """One that never ran has none: both say so, and nothing changes."""
    cid = new_id()
    assert agent.put(cid, image={'memory': None, 'disk': '0' * 64})[0] == 404
    assert agent.get(cid)['state'] == 'error'
    for status, got in (resume_cold(cid, 2), agent.post(cid, 'hibernate', 1, {'memory': False})):
        assert status == 409 and 'no disk here' in got['error']['message'], (status, got)
    assert agent.get(cid)['state'] == 'error' and agent.get(cid)['epoch'] == 1
    assert agent.delete(cid)[0] == 204


def test_paused_is_booted_cold():
    """The memory is given up on purpose: from RAM, and from disk."""
    agent.restart(pause_persist_sec=0, pause_keep_ram_sec=2)
    cid = make()
    for epoch, where in ((2, 'ram'), (3, 'disk')):
        agent.run(cid, 'echo %s >/root/k; echo lost >/dev/shm/m; sync' % where)
        assert agent.post(cid, 'pause', epoch - 1)[0] == 200
        if where == 'disk':
            wait_for('the end of its process', lambda: agent.get(cid)['residency'] == 'disk')
        status, got = resume_cold(cid, epoch)
        assert status == 200 and got['start_mode'] == 'cold', (status, got)
        assert agent.run(cid, 'cat /root/k; ls /dev/shm/m 2>/dev/null | wc -l') == where + '\n0\n'
        assert not glob.glob(agent.state + '/vm/*/state')
        wait_for('one machine', lambda: len(agent.qemus()) == 1)     # an image may be in the making
    agent.restart()
    assert agent.get(cid)['state'] == 'running' and agent.run(cid, 'cat /root/k') == 'disk\n'
    assert agent.delete(cid)[0] == 204


def test_killed_during_a_cold_boot():
    warm_image()     # no machine but this one
    cid = make()
    agent.run(cid, 'echo kept >/root/k; sync')
    kill_vm(cid)
    t = threading.Thread(target=lambda: swallow(lambda: resume_cold(cid, 2)))
    t.start()
    wait_for('its machine', agent.qemus)
    agent.restart()
    t.join(60)
    assert agent.get(cid)['state'] == 'error', agent.get(cid)
    wait_for('no machine', lambda: not agent.qemus())
    assert resume_cold(cid, 2)[0] == 200 and agent.run(cid, 'cat /root/k') == 'kept\n'
    assert agent.delete(cid)[0] == 204


def live(cid):
    """A process, and what memory and disk hold."""
    agent.run(cid, 'head -c 300000 /dev/urandom >/dev/shm/m; head -c 300000 /dev/urandom >/root/d; sync; '
                   'setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >/dev/shm/pid')
    return look(cid)


def look(cid):
    got = agent.run(cid, 'cat /dev/shm/m /root/d | sha256sum; kill -0 $(cat /dev/shm/pid) && echo alive')
    assert 'alive' in got, got
    return got


def power_cut(**how):
    """The image of a paused one is on disk some seconds after the pause; then everything is gone at once."""
    agent.restart(pause_persist_sec=1)
    warm_image()
    cid = make(**how)
    was = live(cid)
    assert agent.post(cid, 'pause')[0] == 200
    wait_for('its image', lambda: cid + ': its image is saved' in agent.log())
    agent.process.kill()
    agent.process.wait()
    agent.kill_all()
    agent.start()
    got = agent.get(cid)
    assert got['state'] == 'paused' and got['residency'] == 'disk', got
    status, got = agent.post(cid, 'resume', 2)
    assert status == 200, (status, got)
    assert look(cid) == was
    assert agent.delete(cid)[0] == 204


def warm_image():
    """The shape's memory image, that later starts are clones of and sleeps are written against, is ready."""
    if not glob.glob(agent.state + '/memory/*'):
        assert agent.delete(make())[0] == 204
    wait_for('the image', lambda: re.search('memory image .* is ready', agent.log()[agent.log().rfind('ready on '):]))


def test_power_cut_while_paused():
    """Row 17."""
    power_cut()


def test_power_cut_while_paused_booted_cold():
    """Its image is written against a memory that it did not start from: the journal must say against which."""
    power_cut(boot='cold')


def test_image_without_a_parent():
    """Written before the shape's image was ready: a later hibernation does not take that image for its parent."""
    agent.stop()
    shutil.rmtree(agent.state + '/memory')
    agent.start(pause_persist_sec=0)
    cid = make()
    was = live(cid)
    assert agent.post(cid, 'pause')[0] == 200
    wait_for('its image', lambda: cid + ': its image is saved' in agent.log())
    before = not re.search('memory image .* is ready', agent.log()[agent.log().rfind('ready on '):])
    warm_image()
    status, h = agent.post(cid, 'hibernate')
    assert status == 200 and h['state'] == 'hibernated', (status, h)
    assert not before or not agent.manifest(h['memory']).get('parent'), agent.manifest(h['memory'])
    status, got = agent.put(cid, 2, image={'memory': h['memory'], 'disk': h['disk']})
    assert status == 200 and look(cid) == was, (status, got)
    assert agent.delete(cid)[0] == 204


def test_disk_snapshot_of_a_paused_one():
    """Its process goes; the image that it continues from keeps its parent."""
    agent.restart(pause_persist_sec=0)
    warm_image()
    cid = make()
    was = live(cid)
    assert agent.post(cid, 'pause')[0] == 200
    wait_for('its image', lambda: cid + ': its image is saved' in agent.log())
    status, got = agent.post(cid, 'snapshot', body={'memory': False, 'key': 'one'})
    assert status == 200, (status, got)
    assert agent.get(cid)['residency'] == 'disk'
    assert agent.post(cid, 'resume', 2)[0] == 200 and look(cid) == was
    assert agent.delete(cid)[0] == 204


def test_the_machine_goes_down():
    """All sleep on disk within the grace; afterwards those that ran run on, those that a person paused do not."""
    agent.restart()
    ran, slept = make(), make()
    was = live(ran), live(slept)
    assert agent.post(slept, 'pause', body={'by': 'user'})[0] == 200
    said = subprocess.run([agent.binary, '-c', agent.dir + '/hutch.conf', '-S'], stderr=subprocess.PIPE)
    assert said.returncode == 0, said
    assert agent.process.wait(60) == 0
    wait_for('no machine', lambda: not agent.qemus())
    assert len(glob.glob(agent.state + '/vm/*/state')) == 2
    said = subprocess.run([agent.binary, '-c', agent.dir + '/hutch.conf', '-S'], stderr=subprocess.PIPE)
    assert said.returncode == 1 and b'no agent runs' in said.stderr, said
    agent.start()
    wait_for('what ran', lambda: agent.get(ran)['state'] == 'running')
    assert look(ran) == was[0]
    got = agent.get(slept)
    assert got['state'] == 'paused' and got['residency'] == 'disk' and got['paused_by'] == 'user', got
    assert agent.post(slept, 'resume', 2)[0] == 200 and look(slept) == was[1]
    assert agent.delete(ran)[0] == 204 and agent.delete(slept)[0] == 204


def test_boot_loop():
    """The fourth reboot within ten minutes is an error; its disk still boots."""
    cid = make()
    agent.run(cid, 'echo kept >/root/k; sync')
    for n in range(1, 5):
        swallow(lambda: agent.run(cid, 'reboot -f'))
        got = wait_for('reboot %d' % n, lambda: (lambda k: k.get('reboots', 0) >= n and k['state'] != 'resuming' and k)(agent.get(cid)))
        assert got['reboots'] == n and got['state'] == ('running' if n < 4 else 'error'), (n, got)
    assert agent.get(cid)['error']['code'] == 'boot_loop', agent.get(cid)
    agent.restart()
    got = agent.get(cid)
    assert got['reboots'] == 4 and got['error']['code'] == 'boot_loop', got
    assert resume_cold(cid, 2)[0] == 200 and agent.run(cid, 'cat /root/k') == 'kept\n'
    assert agent.delete(cid)[0] == 204


def test_quarantine_holds_its_artifacts():
    cid = make()
    status, s = agent.post(cid, 'snapshot', body={'memory': False}, op='q')
    assert status == 200, (status, s)
    assert s['disk_parent'] == agent.manifest(s['disk']).get('parent') and s['memory_parent'] is None, s
    assert agent.post(cid, 'discard', 1)[0] == 204 and not agent.inventory()
    status, got = agent.call('DELETE', '/artifacts/' + s['disk'])
    assert status == 409, (status, got)
    for place in glob.glob(agent.state + '/quarantine/*'):
        os.rename(place, place.rsplit('.', 1)[0] + '.1000')     # a day is over
    wait_for('the end of the quarantine', lambda: not os.listdir(agent.state + '/quarantine'))
    assert agent.call('DELETE', '/artifacts/' + s['disk'])[0] == 204


def test_parents_are_named():
    cid = make()
    h = agent.post(cid, 'hibernate')[1]
    for what in 'memory', 'disk':
        assert h[what + '_parent'] == agent.manifest(h[what]).get('parent'), (what, h)
    agent.restart()
    here = agent.get(cid)
    assert all(here[w] == h[w] for w in ('memory', 'memory_parent', 'disk', 'disk_parent')), (here, h)
    assert agent.delete(cid)[0] == 204


def swallow(call):
    try:
        call()
    except (AssertionError, OSError):
        pass


sys.exit(main(agent, globals(), 'boot'))
