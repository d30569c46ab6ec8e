"""The processes of a running node, found by its home folder in their environment."""

from pathlib import Path


def processes_of(home: Path, *words: str) -> list[int]:
    """Process numbers of the live processes of a node whose command line holds all the words."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
            command = (process / "cmdline").read_bytes().split(b"\0")
            state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if f"MULTIMIX_HOME={home}\0".encode() not in environment or state == "Z":
            continue
        if all(word.encode() in command for word in words):
            found.append(int(process.name))
    return sorted(found)


def broker_of(node: int) -> int:
    """Process number of a node's embedded broker, which overwrites its own environment."""
    for process in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((process / "stat").read_text().rpartition(")")[2].split()[1])
            program = (process / "exe").readlink().name
        except OSError:
            continue
        if parent == node and program == "valkey-server":
            return int(process.name)
    raise AssertionError(f"node {node} has no broker")
