"""The filter, run by an interpreter of the few instructions that it uses; its numbers, held against Linux's headers."""

import errno
import re
import struct
from pathlib import Path

import pytest

from nanochat.tools.seccomp import CALLS, can_filter, filter_bytes

X86_64, AARCH64, I386 = 0xC000003E, 0xC00000B7, 0x40000003
MACHINES = [("x86_64", X86_64, 0, 16), ("aarch64", AARCH64, 1, 29)]
ALLOW, REFUSE, NOT_A_TERMINAL, KILL = 0x7FFF0000, 0x50000 + errno.ENOSYS, 0x50000 + errno.ENOTTY, 0x80000000


def verdict(program: bytes, architecture: int, number: int, second: int = 0) -> int:
    """What a filter returns for a call: Documentation/userspace-api/seccomp_filter.rst."""
    data = struct.pack("=IIQ6Q", number, architecture, 0, 0, second, 0, 0, 0, 0)
    instructions = list(struct.iter_unpack("=HBBI", program))
    position = accumulator = 0
    while True:
        code, if_true, if_false, value = instructions[position]
        position += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x15:
            position += if_true if accumulator == value else if_false
        else:
            assert code == 0x06
            return int(value)


@pytest.mark.parametrize(("machine", "architecture", "column", "ioctl"), MACHINES)
def test_what_is_named_is_allowed_and_nothing_else(machine: str, architecture: int, column: int, ioctl: int) -> None:
    program = filter_bytes(machine)
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
    allowed = {numbers[column] for numbers in CALLS.values()} - {None}
    for number in [*range(600), 0x40000000, 0x40000000 + 57, 2**32 - 1]:
        expected = ALLOW if number in allowed else NOT_A_TERMINAL if number == ioctl else REFUSE
        assert verdict(program, architecture, number) == expected, number


@pytest.mark.parametrize(("machine", "architecture", "column", "ioctl"), MACHINES)
def test_files_may_be_asked_little(machine: str, architecture: int, column: int, ioctl: int) -> None:
    program = filter_bytes(machine)
    assert verdict(program, architecture, ioctl, second=0x5401) == ALLOW  # TCGETS: isatty
    for request in (0x5412, 0x40049409, 0xC0045877, 0x5401 + 2**16):  # TIOCSTI, FICLONE, FIFREEZE, none
        assert verdict(program, architecture, ioctl, second=request) == NOT_A_TERMINAL


@pytest.mark.parametrize(("machine", "architecture", "column", "ioctl"), MACHINES)
def test_another_architecture_is_fatal(machine: str, architecture: int, column: int, ioctl: int) -> None:
    program = filter_bytes(machine)
    for other in {X86_64, AARCH64, I386} - {architecture}:
        assert verdict(program, other, 0) == KILL


def test_other_machines_have_no_filter() -> None:
    assert can_filter("x86_64") and can_filter("aarch64")
    assert not can_filter("riscv64") and not can_filter("")


@pytest.mark.parametrize(
    ("header", "column"),
    [("x86_64-linux-gnu/asm/unistd_64.h", 0), ("asm-generic/unistd.h", 1)],
    ids=["x86_64", "aarch64"],
)
def test_numbers_are_those_of_the_headers(header: str, column: int) -> None:
    path = Path("/usr/include") / header
    if not path.is_file():
        pytest.skip(f"no {path}: Linux's headers are not installed")
    numbers = {
        name: int(number) for name, number in re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", path.read_text())
    }
    numbers.setdefault("newfstatat", numbers.get("fstatat", -1))  # asm-generic's name
    for name, both in CALLS.items():
        if both[column] is not None:
            assert numbers[name] == both[column], name


@pytest.mark.parametrize(
    "name",
    [
        "fork",
        "vfork",
        "clone",
        "clone3",
        "socket",
        "socketpair",
        "connect",
        "bind",
        "ptrace",
        "mount",
        "umount2",
        "unshare",
        "setns",
        "keyctl",
        "add_key",
        "bpf",
        "perf_event_open",
        "io_uring_setup",
        "memfd_create",
        "shmget",
        "userfaultfd",
        "process_vm_writev",
        "pidfd_getfd",
        "chroot",
        "pivot_root",
        "mknodat",
        "chown",
        "fchownat",
        "setuid",
        "prctl",
        "seccomp",
        "execveat",
        "clock_settime",
        "settimeofday",
        "open_by_handle_at",
        "ioctl",
    ],
)
def test_dangerous_calls_are_not_named(name: str) -> None:
    assert name not in CALLS
