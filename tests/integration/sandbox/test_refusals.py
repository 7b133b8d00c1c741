"""Attacks on what lies outside: each must be refused, as the program itself sees it, and leave the host as it was.

A program here prints "refused" where its attempt raised or returned -1, and anything else where it got through.
"""

import os
import platform
import textwrap
from dataclasses import replace
from pathlib import Path

import pytest

from nanochat.tools.sandbox import Sandbox

from .conftest import LIMITS

HOST_SECRET = "a-secret-of-the-host"

PRELUDE = """
import ctypes, os, socket, sys
libc = ctypes.CDLL(None, use_errno=True)
def attempt(function, *arguments):
    try:
        value = function(*arguments)
    except (OSError, RuntimeError, ValueError) as exc:
        print("refused")
    else:
        print("refused" if value == -1 else f"went through: {value!r}")
def call(number, *arguments):
    return libc.syscall(ctypes.c_long(number), *[ctypes.c_long(a) if isinstance(a, int) else a for a in arguments])
"""

PROCESSES = {
    "fork": "attempt(os.fork)",
    "forkpty": "attempt(os.forkpty)",
    "posix_spawn": "attempt(os.posix_spawn, sys.executable, [sys.executable, '-c', 'pass'], {})",
    "subprocess": "import subprocess; attempt(subprocess.run, [sys.executable, '-c', 'pass'])",
    "multiprocessing": """
        import multiprocessing
        attempt(multiprocessing.get_context("fork").Process(target=print).start)
    """,
    "thread": "import threading; attempt(threading.Thread(target=print).start)",
    "setuid program": "attempt(os.execv, '/usr/bin/su', ['su'])",
    "shell": "attempt(os.execv, '/bin/sh', ['sh', '-c', 'echo went through'])",
    "signal to a process of the host": f"attempt(os.kill, {os.getpid()}, 9)",
    "signal to the host's first process": "attempt(os.kill, os.getppid() or 99999, 9)",
    "signal to everybody": "attempt(os.kill, -1, 9)",
    "becoming root": "attempt(os.setuid, 0)",
    "becoming root by setresuid": "attempt(os.setresuid, 0, 0, 0)",
    "higher limits": "import resource; attempt(resource.setrlimit, resource.RLIMIT_AS, (2**40, 2**40))",
    "more priority": "attempt(os.nice, -5)",
}

NETWORK = {
    "TCP": "attempt(socket.create_connection, ('127.0.0.1', 80), 1)",
    "TCP server": "attempt(socket.create_server, ('127.0.0.1', 0))",
    "UDP": "attempt(socket.socket, socket.AF_INET, socket.SOCK_DGRAM)",
    "IPv6": "attempt(socket.socket, socket.AF_INET6)",
    "DNS": "attempt(socket.getaddrinfo, 'example.org', 80)",
    "Unix socket": "attempt(socket.socket, socket.AF_UNIX)",
    "abstract Unix socket": "attempt(lambda: socket.socket(socket.AF_UNIX).connect('\\0dbus'))",
    "netlink": "attempt(socket.socket, socket.AF_NETLINK, socket.SOCK_RAW)",
    "raw packets": "attempt(socket.socket, socket.AF_PACKET, socket.SOCK_RAW)",
    "vsock": "attempt(socket.socket, socket.AF_VSOCK)",
    "pair of sockets": "attempt(socket.socketpair)",
}

FILES = {
    "reading /etc/passwd": "attempt(open, '/etc/passwd')",
    "reading /etc/shadow": "attempt(open, '/etc/shadow')",
    "reading keys": f"attempt(open, {str(Path.home() / '.ssh' / 'id_rsa')!r})",
    "listing the host's home": f"attempt(os.listdir, {str(Path.home() / '.ssh')!r})",
    "reading this test": f"attempt(open, {__file__!r})",
    "environment of the host": "attempt(open, '/proc/1/environ')",
    "own memory by /proc": "attempt(open, '/proc/self/mem', 'wb')",
    "the host's root by /proc": "attempt(os.listdir, '/proc/1/root')",
    "kernel settings": "attempt(open, '/proc/sys/kernel/core_pattern', 'w')",
    "/sys": "attempt(os.listdir, '/sys')",
    "out by ..": "attempt(open, '/tmp/' + '../' * 40 + 'etc/passwd')",
    "out by a symbolic link": "os.symlink('/etc/passwd', '/tmp/link'); attempt(open, '/tmp/link')",
    "out by an open folder": "attempt(lambda: os.open('../../../../etc/passwd', 0, dir_fd=os.open('/', os.O_PATH)))",
    "writing to /": "attempt(open, '/new', 'w')",
    "a folder in /": "attempt(os.mkdir, '/new')",
    "writing to the standard library": "attempt(open, os.__file__, 'r+')",
    "writing beside it": "attempt(open, os.path.dirname(os.__file__) + '/sitecustomize.py', 'w')",
    "writing to site-packages": """
        import sysconfig
        folder = sysconfig.get_paths()["purelib"]
        attempt(open, folder + "/evil.pth", "w")
    """,
    "removing a library": "attempt(os.unlink, os.__file__)",
    "renaming a library": "attempt(os.rename, os.__file__, '/tmp/os.py')",
    "linking a library": "attempt(os.link, os.__file__, '/tmp/os.py')",
    "writing to its own program": "attempt(open, '/program/main.py', 'w')",
    "writing to /dev/shm": "attempt(open, '/dev/shm/x', 'w')",
    "shared memory": """
        from multiprocessing.shared_memory import SharedMemory
        attempt(lambda: SharedMemory(create=True, size=4096))
    """,
    "new device": "import stat; attempt(os.mknod, '/tmp/disk', stat.S_IFBLK | 0o600, os.makedev(8, 0))",
    "disk": "attempt(open, '/dev/sda', 'rb') if not os.path.exists('/dev/vda') else print('there is a disk')",
    "memory of the machine": "attempt(open, '/dev/mem', 'rb')",
    "terminal": "attempt(open, '/dev/tty', 'w')",
    "rights of a device": "attempt(os.chmod, '/dev/null', 0)",
    "owner of a device": "attempt(os.chown, '/dev/null', 0, 0)",
    "chroot": "os.mkdir('/tmp/r'); attempt(os.chroot, '/tmp/r')",
    "typing at a terminal": "import fcntl, termios; attempt(fcntl.ioctl, 0, termios.TIOCSTI, b'x')",
    "time": "import time; attempt(time.clock_settime, time.CLOCK_REALTIME, 0.0)",
    "name of the host": "attempt(socket.sethostname, 'evil')",
    "reading a limit's raise": "import resource; attempt(resource.prlimit, 0, resource.RLIMIT_CPU, (99, 99))",
}

# By their numbers on x86_64, past anything that Python or libc would refuse by themselves.
CALLS = {
    "fork": (57,),
    "vfork": (58,),
    "clone a thread": (56, 0x10F00, 0, 0, 0, 0),
    "clone3": (435, 0, 0),
    "ptrace": (101, 0, 0, 0, 0),
    "mount": (165, b"none", b"/tmp", b"tmpfs", 0, 0),
    "umount2": (166, b"/tmp", 2),
    "pivot_root": (155, b"/tmp", b"/tmp"),
    "chroot": (161, b"/tmp"),
    "unshare users": (272, 0x10000000),
    "setns": (308, 0, 0),
    "open_tree": (428, -100, b"/", 1),
    "fsopen": (430, b"tmpfs", 0),
    "move_mount": (429, -100, b"/", -100, b"/tmp", 0),
    "keyctl": (250, 0, -3, 0, 0, 0),
    "add_key": (248, b"user", b"k", b"v", 1, -3),
    "request_key": (249, b"user", b"k", 0, 0),
    "bpf": (321, 0, 0, 0),
    "perf_event_open": (298, 0, 0, -1, -1, 0),
    "io_uring_setup": (425, 8, 0),
    "userfaultfd": (323, 0),
    "memfd_create": (319, b"m", 0),
    "memfd_secret": (447, 0),
    "shmget": (29, 0, 4096, 0o1600),
    "semget": (64, 0, 1, 0o1600),
    "msgget": (68, 0, 0o1600),
    "mq_open": (240, b"q", 0o102, 0o600, 0),
    "process_vm_readv": (310, 1, 0, 0, 0, 0, 0),
    "process_vm_writev": (311, 1, 0, 0, 0, 0, 0),
    "pidfd_open": (434, 1, 0),
    "pidfd_getfd": (438, 3, 0, 0),
    "open_by_handle_at": (304, -100, 0, 0),
    "init_module": (175, 0, 0, b""),
    "finit_module": (313, 0, b"", 0),
    "kexec_load": (246, 0, 0, 0, 0),
    "reboot": (169, 0xFEE1DEAD, 672274793, 0x1234567),
    "swapon": (167, b"/tmp/swap", 0),
    "settimeofday": (164, 0, 0),
    "clock_adjtime": (305, 0, 0),
    "sethostname": (170, b"evil", 4),
    "syslog": (103, 3, 0, 0),
    "acct": (163, b"/tmp/a"),
    "quotactl": (179, 0, 0, 0, 0),
    "personality": (135, 0x0040000),
    "prctl": (157, 38, 0, 0, 0, 0),
    "seccomp": (317, 0, 0, 0),
    "capset": (126, 0, 0),
    "setuid": (105, 0),
    "iopl": (172, 3),
    "socket": (41, 1, 1, 0),
    "splice": (275, 0, 0, 1, 0, 1, 0),
    "mlockall": (151, 3),
    "sched_setscheduler": (144, 0, 1, 0),
    "execveat": (322, -100, b"/usr/bin/su", 0, 0, 0),
    "fork by its x32 number": (0x40000000 + 57,),
}


def answer(sandbox: Sandbox, program: str) -> str:
    result = sandbox.run(PRELUDE + textwrap.dedent(program))
    return result.stdout + result.stderr


@pytest.mark.parametrize("name", PROCESSES)
def test_no_other_process_is_started_or_reached(sandbox: Sandbox, name: str) -> None:
    assert answer(sandbox, PROCESSES[name]) == "refused\n"


@pytest.mark.parametrize("name", NETWORK)
def test_there_is_no_network(sandbox: Sandbox, name: str) -> None:
    assert answer(sandbox, NETWORK[name]) == "refused\n"


@pytest.mark.parametrize("name", FILES)
def test_no_file_of_the_host_is_read_or_changed(sandbox: Sandbox, name: str) -> None:
    before = Path("/dev/null").stat()
    assert answer(sandbox, FILES[name]) == "refused\n"
    assert Path("/dev/null").stat().st_mode == before.st_mode


@pytest.mark.skipif(platform.machine() != "x86_64", reason="numbers of x86_64")
@pytest.mark.parametrize("name", CALLS)
def test_dangerous_system_calls_are_unknown(sandbox: Sandbox, name: str) -> None:
    arguments = ", ".join(map(repr, CALLS[name]))
    assert answer(sandbox, f"print(call({arguments}), ctypes.get_errno())") == "-1 38\n"  # ENOSYS


@pytest.mark.skipif(platform.machine() != "x86_64", reason="machine code of x86_64")
def test_a_call_by_the_numbers_of_32_bits_ends_the_program(sandbox: Sandbox) -> None:
    program = """
        import ctypes, mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write(b"\\xb8\\x02\\x00\\x00\\x00\\xcd\\x80\\xc3")  # mov eax, 2 (fork); int 0x80; ret
        print("calling", flush=True)
        print(ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))())
    """
    result = sandbox.run(textwrap.dedent(program))
    assert (result.outcome, result.stdout) == ("error", "calling\n")


def test_the_environment_and_open_files_stay_outside(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", HOST_SECRET)
    program = """
        import os
        print(sorted(os.environ), os.getcwd(), os.listdir("."))
        for fd in range(3, 4096):
            try:
                print(fd, os.fstat(fd))
            except OSError:
                pass
    """
    with Path(__file__).open() as inheritable:
        os.set_inheritable(inheritable.fileno(), True)
        result = sandbox.run(textwrap.dedent(program))
    assert result.stdout == "['HOME', 'LANG', 'PATH', 'PWD'] /tmp []\n"
    assert HOST_SECRET not in str(result)


def test_all_that_can_be_found_is_libraries_and_no_rights_come_with_them(sandbox: Sandbox) -> None:
    program = """
        import os
        print(sorted(set(os.listdir("/")) - {"lib", "lib64", "usr"}), os.listdir("/program"), os.listdir("/dev"))
        for folder, _, names in os.walk("/"):
            for name in [".", *names]:
                path = os.path.join(folder, name)
                if folder.startswith(("/tmp", "/dev")) or not os.access(path, os.W_OK, follow_symlinks=False):
                    continue
                print("may write", path)
        flags = [os.statvfs(folder).f_flag for folder in ("/", "/tmp", "/usr/lib")]
        print([bool(flag & os.ST_NOSUID) for flag in flags])
        print(os.getuid(), os.geteuid(), os.getgroups() and set(os.getgroups()) == {65534}, os.getpid(), os.getppid())
    """
    patient = Sandbox(replace(LIMITS, cpu_s=20))  # all of the library's files are looked at
    result = patient.run(textwrap.dedent(program))
    assert "may write" not in result.stdout
    roots, flags, ids = result.stdout.splitlines()
    assert "'root'" not in roots and "'home'" not in roots and "'proc'" not in roots
    assert flags == "[True, True, True]"
    assert ids.startswith("65534 65534") and ids.endswith(" 1 0")
