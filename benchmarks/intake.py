"""How fast instances are taken in: our listener beside dcmtk's storescp and Orthanc, interleaved.

    python benchmarks/intake.py [--rounds 3] [--json FILE]

The sender is dcmtk's storescu on the same machine, so the figures are of sender and receiver
together, and only the differences between receivers mean anything. Every receiver is started anew
for each measurement; rounds go through all receivers in turn, so that a busy machine hurts all
alike. Ours fsyncs every instance before it answers; storescp does not; Orthanc does by default.
"""

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmwrite
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

LISTENER_SCRIPT = """
import sys, threading
from pathlib import Path
from dicom_io.listener import Listener, ListenerConfiguration
from dicom_io.storage import InstanceStore

class Forgetful:
    def association_accepted(self, association): pass
    def instance_stored(self, association, instance): pass
    def association_ended(self, association, released): pass
    def association_refused(self, association, reason): pass

configuration = ListenerConfiguration(
    "MULTIMIX", port=int(sys.argv[1]), maximum_pdu_size=int(sys.argv[3])
)
with Listener(configuration, InstanceStore(Path(sys.argv[2])), Forgetful()):
    threading.Event().wait()
"""


@dataclass(frozen=True)
class Load:
    """What is sent: so many square 16-bit films of one size, over so many associations at once."""

    side: int
    instances: int
    associations: int

    @property
    def megabytes(self) -> float:
        """Size of one instance's pixels in 10^6 bytes."""
        return self.side * self.side * 2 / 1e6


@dataclass(frozen=True)
class Figure:
    """One measurement."""

    receiver: str
    load: Load
    seconds: float

    @property
    def instances_per_second(self) -> float:
        """Instances acknowledged per second."""
        return self.load.instances / self.seconds


def write_films(folder: Path, load: Load) -> list[Path]:
    """One folder of films for each association."""
    folders = [folder / str(number) for number in range(load.associations)]
    random = np.random.default_rng(0)
    for number in range(load.instances):
        film = Dataset()
        film.file_meta = FileMetaDataset()
        film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        film.SOPClassUID = DigitalXRayImageStorageForPresentation
        film.SOPInstanceUID = UID(f"2.25.{load.side}{number:06d}")
        film.StudyInstanceUID, film.SeriesInstanceUID = UID("2.25.2"), UID("2.25.3")
        film.PatientID, film.Modality = "BENCH", "DX"
        film.Rows = film.Columns = load.side
        film.SamplesPerPixel, film.PhotometricInterpretation = 1, "MONOCHROME2"
        film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
        film.PixelRepresentation = 0
        film.PixelData = random.bytes(load.side * load.side * 2)
        target = folders[number % load.associations]
        target.mkdir(parents=True, exist_ok=True)
        dcmwrite(target / f"{number}.dcm", film, enforce_file_format=True)
    return folders


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


@contextmanager
def running(command: list[str], port: int) -> Iterator[None]:
    """A receiver as a process of its own, until it listens and then to its end."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )
    deadline = time.monotonic() + 30
    try:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                if process.poll() is not None or time.monotonic() > deadline:
                    raise SystemExit(f"{command[0]} does not listen") from None
                time.sleep(0.05)
        yield
    finally:
        process.terminate()
        process.wait()


def our_command(maximum_pdu_size: int) -> Callable[[Path, int], list[str]]:
    """The listener with fsync, offering a PDU length."""

    def command(folder: Path, port: int) -> list[str]:
        options = [str(port), str(folder), str(maximum_pdu_size)]
        return [sys.executable, "-c", LISTENER_SCRIPT, *options]

    return command


def storescp_command(folder: Path, port: int) -> list[str]:
    """dcmtk, one process for each association, bytes as they come."""
    return ["storescp", "--fork", "+B", "-pdu", "131072", "-od", str(folder), str(port)]


def orthanc_command(folder: Path, port: int) -> list[str]:
    """Orthanc with SQLite, fsync on, no plugins."""
    settings = {
        "StorageDirectory": str(folder),
        "IndexDirectory": str(folder),
        "DicomPort": port,
        "HttpServerEnabled": False,
        "MaximumPduLength": 131072,
        "SyncStorageArea": True,
        "Plugins": [],
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(settings))
    return [shutil.which("Orthanc") or "/usr/sbin/Orthanc", str(path)]


def seconds_to_send(folders: list[Path], port: int) -> float:
    """Time for all associations together, started at once."""
    began = time.perf_counter()
    command = ["storescu", "+sd", "-pdu", "131072", "127.0.0.1", str(port)]
    senders = [subprocess.Popen([*command, str(folder)]) for folder in folders]
    if any(sender.wait() for sender in senders):
        raise SystemExit("storescu failed: not every instance was taken")
    return time.perf_counter() - began


def main() -> None:
    """Measure, print a table, and write the figures as JSON if asked to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--scale", type=float, default=1.0, help="share of the instances to send")
    arguments = parser.parse_args()
    receivers: dict[str, Callable[[Path, int], list[str]]] = {
        "MultiMix listener (fsync)": our_command(4 << 20),
        "MultiMix listener (fsync, 128 KiB PDU)": our_command(131072),
        "dcmtk storescp --fork": storescp_command,
    }
    if Path(shutil.which("Orthanc") or "/usr/sbin/Orthanc").exists():
        receivers["Orthanc (fsync)"] = orthanc_command
    loads = [Load(512, 400, 1), Load(512, 400, 4), Load(2240, 30, 1), Load(2240, 30, 4)]
    loads = [
        Load(lo.side, max(4, int(lo.instances * arguments.scale)), lo.associations) for lo in loads
    ]
    figures: list[Figure] = []
    with tempfile.TemporaryDirectory() as scratch:
        for load in loads:
            folders = write_films(Path(scratch) / f"{load.side}-{load.associations}", load)
            for _ in range(arguments.rounds):
                for name, command in receivers.items():
                    with tempfile.TemporaryDirectory(dir=scratch) as target:
                        port = free_port()
                        with running(command(Path(target), port), port):
                            figures.append(Figure(name, load, seconds_to_send(folders, port)))
    print_table(figures)
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(f) for f in figures], indent=1))


def print_table(figures: list[Figure]) -> None:
    """Median, lowest and highest of each receiver under each load."""
    print(f"{'receiver':40}{'load':34}{'instances/s':>24}{'MB/s':>8}")
    for load in dict.fromkeys(figure.load for figure in figures):
        for receiver in dict.fromkeys(figure.receiver for figure in figures):
            rates = [
                f.instances_per_second for f in figures if (f.receiver, f.load) == (receiver, load)
            ]
            middle = statistics.median(rates)
            shown = f"{load.instances} x {load.megabytes:.1f} MB, {load.associations} associations"
            spread = f"{middle:.0f} ({min(rates):.0f} to {max(rates):.0f})"
            print(f"{receiver:40}{shown:34}{spread:>24}{middle * load.megabytes:8.0f}")


if __name__ == "__main__":
    main()
