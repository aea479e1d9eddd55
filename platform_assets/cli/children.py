"""Child processes that lead a group of their own and end when their standard input closes."""

import os
import signal
import subprocess

import psutil


def end_child(process: "subprocess.Popen[bytes]", seconds: float) -> int:
    """Close its standard input, wait so long for it, then end what is left of its group; its exit status.

    Twice is once: a group's number may be somebody else's later.
    """
    if process.returncode is not None and process.stdin and process.stdin.closed:
        return process.returncode
    if process.stdin and not process.stdin.closed:
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.terminate()
    _end_group(process.pid)
    return process.wait()


def _end_group(group: int) -> None:
    """End what is left of a process group whose leader has ended; as a rule nobody is."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        members = [process for process in psutil.process_iter() if _group_of(process.pid) == group]
        if not members:
            return
        os.killpg(group, number)
        psutil.wait_procs(members, timeout=10)


def _group_of(pid: int) -> int | None:
    try:
        return os.getpgid(pid)
    except (ProcessLookupError, PermissionError):
        return None
