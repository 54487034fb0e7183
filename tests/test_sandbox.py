"""minillama/evals/sandbox.py and walls.py: a program gets out of nowhere.

Each way out that is known is tried, as whoever runs the tests and, being
root, as another user too: other processes, the network, files outside,
owners and modes, time, memory, output. What is checked is the world outside:
the file is not there, no process is left, nobody answered. The instructions
of the filter are executed by an interpreter of the twelve lines it takes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time

import pytest

from minillama.evals import sandbox, walls

pytestmark = pytest.mark.skipif(
    sandbox.offered() is None,
    reason="this machine has no walls (Landlock and seccomp)")


def test_right_programs_pass_and_wrong_ones_fail():
    assert sandbox.run("def f(x):\n    return x\nassert f(2) == 2") == (
        sandbox.Outcome(True, "passed"))
    assert sandbox.run("assert 1 == 2").reason == "AssertionError"
    assert "SyntaxError" in sandbox.run("def f(: pass").reason
    assert "name 'g'" in sandbox.run("g()").reason


@pytest.mark.parametrize("program", [
    "import math, re, json, heapq, collections, itertools, functools\n"
    "assert math.gcd(4, 6) == 2",
    "import threading\nt = threading.Thread(target=len, args=([],))\n"
    "t.start()\nt.join()",
    "open('mine.txt', 'w').write('x')\nassert open('mine.txt').read() == 'x'",
    "import tempfile\ntempfile.NamedTemporaryFile().write(b'x')",
    "print('words')",
])
def test_what_programs_need_is_allowed(program):
    assert sandbox.run(program) == sandbox.Outcome(True, "passed")


@pytest.mark.parametrize("program", [
    "import os; os._exit(0)", "raise SystemExit(0)", "import sys; sys.exit()",
    "exit()", "import os; os.write(2, b'0' * 32); os._exit(0)",
])
def test_ending_early_is_not_passing(program):
    outcome = sandbox.run(program)
    assert not outcome.passed


PROCESSES = [
    "os.fork()", "os.forkpty()", "os.system('touch {out}') and 1/0",
    "subprocess.run(['touch', '{out}'])", "os.execv('/bin/touch', ['t', "
    "'{out}'])", "os.posix_spawn('/bin/touch', ['t', '{out}'], {{}})",
    "ctypes.CDLL(None).vfork() == -1 and 1/0",
]


@pytest.mark.parametrize("call", PROCESSES)
def test_no_other_process_is_started(call, tmp_path):
    out = tmp_path / "out"
    program = "import os, subprocess, ctypes\n" + call.format(out=out)
    assert not sandbox.run(program).passed
    assert not out.exists()


def test_a_fork_bomb_is_one_process():
    before = len(os.listdir("/proc"))
    bomb = ("import os\nn = 0\nwhile True:\n    try:\n        os.fork()\n"
            "        n += 1\n    except OSError:\n        pass\n")
    assert sandbox.run(bomb, seconds=1.0).reason == "timeout"
    assert len(os.listdir("/proc")) < before + 20


CALL = """import array, ctypes, fcntl, os, stat
def call(*what):
    if ctypes.CDLL(None, use_errno=True).syscall(*what) < 0:
        raise OSError(ctypes.get_errno(), "refused")
"""

WRITES = [
    "open('{out}', 'w')", "open('{old}', 'a')", "os.remove('{old}')",
    "os.rename('{old}', 'x')", "os.link('{old}', '{out}')",
    "os.symlink('/', '{out}')", "os.mkdir('{out}')", "os.mkfifo('{out}')",
    "os.truncate('{old}', 0)", "os.chmod('{old}', 0)",
    "os.chown('{old}', 1, 1)", "os.utime('{old}', (0, 0))",
    "os.setxattr('{old}', 'user.x', b'1')",
    "os.symlink('{old}', 'link'); open('link', 'w')",
    "open('/proc/self/oom_score_adj', 'w').write('0')",
    "call(452, -100, b'{old}', 0o777, 0)",  # fchmodat2
    "f = open('{old}'); word = array.array('l', [64])  # do not dump\n"
    "fcntl.ioctl(f, 0x40086602, word)",
    "open('/dev/shm/minillama-out', 'w')",
]


@pytest.mark.parametrize("call", WRITES)
def test_nothing_outside_is_written(call, tmp_path):
    old, out = tmp_path / "old", tmp_path / "out"
    old.write_text("as it was", encoding="utf-8")
    before = old.stat()
    outcome = sandbox.run(CALL + call.format(old=old, out=out))
    assert not outcome.passed and "Error" in outcome.reason, outcome
    after = old.stat()
    assert old.read_text(encoding="utf-8") == "as it was"
    assert (before.st_mode, before.st_uid, before.st_mtime) == (
        after.st_mode, after.st_uid, after.st_mtime)
    assert not out.exists() and not out.is_symlink()


def test_nobody_can_be_called():
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.2)
        port = server.getsockname()[1]
        call = ("import socket\n"
                f"socket.create_connection(('127.0.0.1', {port}), 1)")
        assert "not permitted" in sandbox.run(call).reason
        with pytest.raises(TimeoutError):
            server.accept()


@pytest.mark.parametrize("call", [
    "os.kill(PID, 9)", "os.kill(os.getppid(), 9)", "os.killpg(0, 9)",
    "signal.pidfd_send_signal(os.pidfd_open(PID), 9)",
    "resource.prlimit(PID, resource.RLIMIT_NOFILE, (1, 1))",
    "open(f'/proc/{PID}/mem', 'r+b')",
    "os.setpriority(os.PRIO_PROCESS, PID, 19)",
    "os.setuid(0)", "time.clock_settime(time.CLOCK_REALTIME, 0)",
    "os.sethostname('x')" if hasattr(os, "sethostname") else
    "socket.sethostname('x')",
])
def test_parent_and_machine_are_out_of_reach(call):
    outcome = sandbox.run("import os, signal, resource, time, socket\n"
                          f"PID = {os.getpid()}\n{call}")
    assert not outcome.passed and "Name" not in outcome.reason
    assert sandbox.run("pass").passed, "the parent lives"


def test_no_file_sends_a_signal():
    with subprocess.Popen(["sleep", "60"]) as other:
        outcome = sandbox.run(
            "import fcntl, os\nr, w = os.pipe()\n"
            f"fcntl.fcntl(r, fcntl.F_SETOWN, {other.pid})\n"
            "fcntl.fcntl(r, 10, 9)  # F_SETSIG\n"
            "fcntl.fcntl(r, fcntl.F_SETFL, os.O_ASYNC)\nos.write(w, b'x')")
        time.sleep(0.1)
        alive = other.poll() is None
        other.kill()
    assert alive and "not permitted" in outcome.reason


@pytest.mark.parametrize("call", [
    "os.mknod('null', stat.S_IFCHR | 0o666, os.makedev(1, 3))",
    "os.mknod('disk', stat.S_IFBLK | 0o666, os.makedev(8, 0))",
    "call(300, 0, 0)",  # fanotify_init
    "call(157, 1, 0)",  # live on after the parent
    "call(31, 0, 0, 0)", "call(71, 0, 0, 0)",  # shmctl, msgctl
])
@pytest.mark.skipif(walls.platform.machine() != "x86_64",
                    reason="the numbers are those of x86-64")
def test_what_only_root_may_is_refused_to_root(call):
    assert "ot permitted" in (
        reason := sandbox.run(CALL + call).reason) or "[Errno 1]" in reason


def test_the_environment_of_the_parent_is_not_read():
    outcome = sandbox.run(f"open('/proc/{os.getpid()}/environ').read()")
    assert "PermissionError" in outcome.reason


def test_a_deep_folder_is_cleared_away(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    deep = "import os\nfor n in range(2000):\n    os.mkdir('d')\n"
    assert sandbox.run(deep + "    os.chdir('d')", seconds=20.0).passed
    assert not any(tmp_path.iterdir())


def test_time_memory_and_output_are_bounded():
    began = time.monotonic()
    assert sandbox.run("while True: pass", seconds=1.0).reason == "timeout"
    assert sandbox.run("import time; time.sleep(60)", seconds=1.0
                       ).reason == "timeout"
    assert time.monotonic() - began < 15
    assert sandbox.run("x = bytearray(2**31)").reason == "MemoryError"
    assert sandbox.run("while True: print('a' * 1000)", seconds=20.0
                       ).reason == "output"
    assert sandbox.run("import sys\nwhile True: sys.stderr.write('a' * 999)",
                       seconds=20.0).reason == "output"
    assert not sandbox.run("open('big', 'wb').write(bytes(2**25))").passed
    assert not sandbox.run(
        "held = [open('/dev/zero') for _ in range(100)]").passed


def test_bad_input_of_the_sandbox_itself():
    assert not sandbox.run("x = '\ud800'").passed  # a lone surrogate
    assert not sandbox.run("\0").passed
    assert sandbox.run("").passed
    assert sandbox.run("x = 1\n" * 100_000, seconds=30.0).passed


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0,
                    reason="only root can become somebody else")
def test_without_rights_too():
    """The walls ask for none: a plain user is walled in as root is."""
    folder = tempfile.mkdtemp()
    os.chmod(folder, 0o777)
    # All is read before the user changes: root's folders are closed to it.
    script = f"""
import ctypes, os, platform, resource, struct
from importlib import util
spec = util.spec_from_file_location("walls", {str(WALLS)!r})
walls = util.module_from_spec(spec)
spec.loader.exec_module(walls)
os.setgid(65534)
os.setuid(65534)
walls.shut_in({folder!r}, 5, 2**30)
for call in (os.fork, lambda: open("/tmp/outside", "w")):
    try:
        call()
    except PermissionError:
        os.write(1, b"walled in ")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd="/",
                          capture_output=True, check=False)
    shutil.rmtree(folder)
    assert done.stdout == b"walled in walled in ", done.stderr.decode()


WALLS = sandbox.WALLS


def verdict(machine: str, architecture: int, number: int, first: int = 0,
            second: int = 0) -> int:
    """What the filter answers, by a small interpreter of its own."""
    data = {0: number, 4: architecture, 16: first, 24: second}
    value, at, lines = 0, 0, walls.program_of_filter(machine)
    while True:
        code, yes, no, k = lines[at]
        at += 1
        if code == walls.RETURN:
            return k
        if code == walls.LOAD:
            value = data[k]
        else:
            true = {walls.EQUAL: value == k, walls.AT_LEAST: value >= k,
                    walls.ANY_BIT: bool(value & k)}[code]
            at += yes if true else no


@pytest.mark.parametrize("machine", sorted(walls.MACHINES))
def test_the_filter_itself(machine):
    architecture, clone, fcntl, ioctl = walls.MACHINES[machine]
    refused = walls.REFUSE | walls.EPERM
    for number in map(int, walls.REFUSED[machine].split()):
        assert verdict(machine, architecture, number) == refused
    assert verdict(machine, architecture, clone, 17) == refused
    assert verdict(machine, architecture, clone,
                   walls.CLONE_THREAD) == walls.ALLOW
    for younger in (435, walls.NEWEST, 463, 2**30 + 1):
        assert verdict(machine, architecture, younger) == (
            walls.REFUSE | walls.ENOSYS)
    assert verdict(machine, architecture, ioctl) == (
        walls.REFUSE | walls.ENOTTY)
    for what in (8, 10, 15, 1026):  # owners and signals of a file
        assert verdict(machine, architecture, fcntl, 0, what) == refused
    for what in (0, 1, 2, 3, 4, walls.F_DUPFD_CLOEXEC):
        assert verdict(machine, architecture, fcntl, 0, what) == walls.ALLOW
    assert verdict(machine, 1, 0) == walls.KILL
    read, write = {"x86_64": (0, 1), "aarch64": (63, 64)}[machine]
    for number in (read, write):
        assert verdict(machine, architecture, number) == walls.ALLOW


def test_without_walls_nothing_runs(monkeypatch, tmp_path):
    broken = tmp_path / "walls.py"
    broken.write_text(WALLS.read_text("utf-8").replace(
        "def shut_in(", "def shut_in(*a):\n    raise NoWalls('none here')\n"
        "def unused("), encoding="utf-8")
    monkeypatch.setattr(sandbox, "WALLS", broken)
    mark = tmp_path / "mark"
    with pytest.raises(ValueError, match="not run here.*none here"):
        sandbox.run(f"open({str(mark)!r}, 'w')")
    assert not mark.exists()
    sandbox.offered.cache_clear()
    assert sandbox.offered() is None
    sandbox.offered.cache_clear()
