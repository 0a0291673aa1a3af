"""Identity of processes on this machine, from Linux's /proc."""

import os


def process_namespace() -> str:
    """Identity of this machine's boot and process namespace, in which a process id is unique.

    Returns:
        An empty string where it is unknown.
    """
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since the machine booted; None if it has ended."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            # The command name, in parentheses, may contain anything.
            state, *fields = file.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if state in "ZX" else int(fields[18])
