"""A PostgreSQL cluster of the tests' own: in a temporary folder, on a socket only they know."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from tests.programs import require_program

SERVER_FOLDERS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)


def server_program(name: str) -> str:
    """A program of the PostgreSQL server, which Debian keeps off the PATH."""
    for folder in SERVER_FOLDERS:
        if (folder / name).exists():
            return str(folder / name)
    return str(require_program(name))


@contextmanager
def running_cluster() -> Iterator[str]:
    """Start a cluster and give its URL without database name; it is gone afterwards.

    The server refuses to run as root; there it runs as the user that Debian makes for it.
    """
    initdb, pg_ctl = server_program("initdb"), server_program("pg_ctl")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_server: list[str] = []
    if os.geteuid() == 0:
        as_server = ["runuser", "-u", "postgres", "--"]
        shutil.chown(folder, "postgres", "postgres")
    data, log = folder / "data", folder / "log"

    def run(*arguments: str) -> None:
        done = subprocess.run(
            [*as_server, *arguments], cwd=folder, capture_output=True, text=True, timeout=60
        )
        if done.returncode:
            pytest.fail(f"{arguments[0]} failed: {done.stderr or done.stdout}")

    try:
        run(initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-k {folder} -c listen_addresses= -c fsync=off -c shared_buffers=16MB"
        run(pg_ctl, "-D", str(data), "-l", str(log), "-w", "-o", options, "start")
        yield f"postgresql+psycopg://postgres@/{{database}}?host={folder}"
        run(pg_ctl, "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def new_database(cluster_url: str) -> str:
    """Make an empty database and give its URL."""
    name = f"test_{uuid4().hex}"
    host = cluster_url.partition("?host=")[2]
    with psycopg.connect(
        host=host, user="postgres", dbname="postgres", autocommit=True
    ) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
    return cluster_url.format(database=name)
