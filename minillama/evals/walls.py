"""The walls around a program that a model wrote, put up from inside.

Run as a program of its own, with the standard library alone: it limits
itself, shuts itself in, and only then runs what it was given. Landlock
refuses writing outside its folder, seccomp refuses every call that reaches
another process, the network or the machine, and limits bound time, memory
and files. None of it asks who is calling, and root gives up what root may, so
that root is walled in like anybody; none can be taken down again from inside.

Chapter: notebooks/14_evaluation.ipynb
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
EPERM, ENOTTY, ENOSYS = 1, 25, 38
LOAD, EQUAL, AT_LEAST, ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
CLONE_THREAD, F_DUPFD_CLOEXEC = 0x10000, 1030

# The kernel's numbers of what is refused: starting programs and signalling
# them, looking into them, sockets, mounts and namespaces, changing owners,
# modes and times (which Landlock does not guard), kernel interfaces, clocks,
# limits and priorities, memory and messages shared by name, dying with the
# parent.
REFUSED = {
    "x86_64": """57 58 59 322 62 200 234 129 297 424 434 438 101 310 311 440
        312 41 53 42 49 44 46 307 165 166 442 429 428 430 432 431 433 155 161
        272 308 304 179 163 167 168 90 91 268 92 93 94 260 132 235 261 280 76
        188 189 190 197 198 199 321 298 425 426 427 323 248 249 250 175 313
        176 246 320 169 164 227 305 159 170 171 103 172 173 153 302 160 141
        251 203 144 314 142 256 279 240 241 29 30 31 64 65 66 220 68 69 70 71
        319 105 106 126 157 300 443""",
    "aarch64": """221 281 129 130 131 138 240 424 434 438 117 270 271 440 272
        198 199 203 200 206 211 269 40 39 442 429 428 430 432 431 433 41 51 97
        268 265 60 89 224 225 52 53 55 54 88 45 5 6 7 14 15 16 280 241 425 426
        427 282 217 218 219 105 273 106 104 294 142 170 112 266 171 161 162
        116 58 261 164 140 30 122 119 274 118 238 239 180 181 194 195 196 190
        191 192 193 186 187 188 189 279 146 144 91 167 262 443""",
}
MACHINES = {"x86_64": (0xC000003E, 56, 72, 16),
            "aarch64": (0xC00000B7, 220, 25, 29)}
"""What seccomp calls the processor; its `clone`, `fcntl` and `ioctl`."""
CLONE3, NEWEST = 435, 452
"""`clone3`, and the first call that is younger than the lists."""


class NoWalls(RuntimeError):
    """This machine cannot shut a program in."""


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def write_in(folder: str) -> None:
    """From now on refuse writing anywhere but below a folder (Landlock)."""
    libc = _libc()
    if (version := libc.syscall(444, None, 0, 1)) < 1:
        raise NoWalls("the kernel has no Landlock")
    # Write to files, remove and make entries of any kind; later versions
    # also move between folders and cut files short.
    rights = 0b1_1111_1111_0010 | (version >= 2) << 13 | (version >= 3) << 14
    attributes = ctypes.create_string_buffer(struct.pack("Q", rights))
    rules = libc.syscall(444, attributes, 8, 0)
    where = os.open(folder, os.O_PATH)
    beneath = ctypes.create_string_buffer(struct.pack("=Qi", rights, where))
    if (rules < 0 or libc.syscall(445, rules, 1, beneath, 0)
            or libc.syscall(446, rules, 0)):
        raise NoWalls(f"Landlock failed (error {ctypes.get_errno()})")
    os.close(where)


def program_of_filter(machine: str) -> list[tuple[int, int, int, int]]:
    """seccomp's instructions: (code, jump if true, jump if false, value)."""
    architecture, clone, fcntl, ioctl = MACHINES[machine]
    refuse, allow = (RETURN, 0, 0, REFUSE | EPERM), (RETURN, 0, 0, ALLOW)
    # The second set of numbers that x86-64 has begins above NEWEST. Nothing
    # is a terminal: ioctl also types into them and marks others' files.
    lines = [(LOAD, 0, 0, 4), (EQUAL, 1, 0, architecture),
             (RETURN, 0, 0, KILL), (LOAD, 0, 0, 0),
             (AT_LEAST, 1, 0, NEWEST), (EQUAL, 0, 1, CLONE3),
             (RETURN, 0, 0, REFUSE | ENOSYS),
             (EQUAL, 0, 1, ioctl), (RETURN, 0, 0, REFUSE | ENOTTY)]
    for number in map(int, REFUSED[machine].split()):
        lines += [(EQUAL, 0, 1, number), refuse]
    # fcntl copies and locks, but lets no file send a signal to anybody.
    lines += [(EQUAL, 0, 5, fcntl), (LOAD, 0, 0, 24), (AT_LEAST, 0, 2, 8),
              (EQUAL, 1, 0, F_DUPFD_CLOEXEC), refuse, allow]
    # Threads may be started, processes not.
    return [*lines, (EQUAL, 0, 3, clone), (LOAD, 0, 0, 16),
            (ANY_BIT, 1, 0, CLONE_THREAD), refuse, allow]


def refuse_calls() -> None:
    """From now on the kernel refuses what `REFUSED` lists (seccomp)."""
    machine = platform.machine()
    if machine not in MACHINES:
        raise NoWalls(f"no list of system calls for {machine}")
    code = b"".join(struct.pack("HBBI", *line)
                    for line in program_of_filter(machine))
    text = ctypes.create_string_buffer(code)
    filter_ = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(text))
    if _libc().prctl(22, 2, ctypes.create_string_buffer(filter_), 0, 0):
        raise NoWalls(f"seccomp failed (error {ctypes.get_errno()})")


def limit(seconds: int, memory: int) -> None:
    """Processor time, address space, size and number of files."""
    import resource

    for name, most in (("CPU", seconds), ("AS", memory), ("CORE", 0),
                       ("FSIZE", 2**24), ("NOFILE", 64)):
        resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), (most, most))


def shut_in(folder: str, seconds: int, memory: int) -> None:
    """All walls, in the order in which each still can be put up.

    Raises:
        NoWalls: if one of them is not to be had.
    """
    if sys.platform != "linux":
        raise NoWalls(f"{sys.platform} has neither Landlock nor seccomp")
    libc = _libc()
    libc.prctl(1, 9)  # die with the parent
    # Root's capabilities: devices, other users' files, others' memory.
    if (libc.prctl(38, 1, 0, 0, 0)
            or libc.capset(struct.pack("Ii", 0x20080522, 0), bytes(24))):
        raise NoWalls("rights cannot be given up")
    limit(seconds, memory)
    write_in(folder)
    refuse_calls()


def main() -> None:
    """Read a program from stdin, shut in, run it; say at the end that it ran.

    The last word is a secret of the parent's, so that a program which ends
    early, with whatever exit code, has not passed.
    """
    folder, seconds, memory, word = sys.argv[1:]
    source = sys.stdin.read()
    sys.argv[1:] = []
    try:
        shut_in(folder, int(seconds), int(memory))
    except (NoWalls, OSError, ValueError) as error:
        print(f"no walls: {error}", file=sys.stderr)
        os._exit(3)
    exec(compile(source, "program", "exec"), {"__name__": "__main__"})
    sys.stdout.flush()
    os.write(2, word.encode())
    os._exit(0)


if __name__ == "__main__":
    main()
