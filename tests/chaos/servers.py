"""A PostgreSQL and a Redis server that can be killed at any moment and are started again."""

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.programs import require_program
from tests.worker.postgres import server_program
from worker.demo_pacs import free_port

RESTART_SECONDS = 30.0


@dataclass
class PostgresServer:
    """A cluster of its own; unlike that of other tests it keeps its promises on the disk.

    Attributes:
        url: SQLAlchemy URL of an empty database in it.
    """

    folder: Path
    url: str

    def kill(self) -> None:
        """Kill the server and all of its processes, and start it again."""
        master = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{master}/task/{master}/children").read_text().split()
        for process in (master, *map(int, children)):
            try:
                os.kill(process, signal.SIGKILL)
            except ProcessLookupError:
                continue
        deadline = time.monotonic() + RESTART_SECONDS
        while True:
            try:
                self.start()
            except subprocess.CalledProcessError:  # its memory may still be held by the dead
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
            else:
                return

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses= -c shared_buffers=16MB"
        arguments = ["-D", str(self.folder / "data"), "-l", str(self.folder / "log")]
        self._run("pg_ctl", *arguments, "-w", "-t", "60", "-o", options, "start")

    def stop(self) -> None:
        """Stop the server."""
        self._run("pg_ctl", "-D", str(self.folder / "data"), "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        as_server = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        # Its own session: whoever kills a node's processes must not reach it.
        subprocess.run(
            [*as_server, server_program(program), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            timeout=90,
        )


@contextmanager
def postgres_server() -> Iterator[PostgresServer]:
    """A running PostgreSQL server, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = PostgresServer(folder, f"postgresql+psycopg://postgres@/chaos?host={folder}")
    try:
        server._run("initdb", "-D", str(folder / "data"), "-U", "postgres", "-A", "trust")
        server.start()
        with psycopg.connect(
            host=str(folder), user="postgres", dbname="postgres", autocommit=True
        ) as connection:
            connection.execute("CREATE DATABASE chaos")
        yield server
        server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class RedisServer:
    """A Redis server with an append-only file.

    Attributes:
        url: where it answers.
    """

    folder: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start the server."""
        self.process = subprocess.Popen(
            [
                require_program("redis-server"),
                *("--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--appendonly", "yes"),
            ],
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        """Kill the server and start it again."""
        self.stop(signal.SIGKILL)
        self.start()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the server."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(timeout=30)


@contextmanager
def redis_server(folder: Path) -> Iterator[RedisServer]:
    """A running Redis server."""
    folder.mkdir(parents=True, exist_ok=True)
    server = RedisServer(folder, free_port())
    server.start()
    try:
        yield server
    finally:
        server.stop()
