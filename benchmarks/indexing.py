"""How an export of many small films is read: rate over its course, memory, and the second start.

    python benchmarks/indexing.py [--instances 20000] [--jobs 2] [--json FILE]

The films are one drawn film of 64 x 64 pixels with ever new UIDs and patients, ten to a folder, so
that what is measured is the work for each instance and not the decoding of large pixels. Each start
is a process of its own; its memory is that of itself and its children, sampled five times a second:
the sum of their resident sets, in which a page that three processes share counts three times, and
of their proportional sets, in which it counts once.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from dicom_io.phantom import draw_phantom, phantom_dataset

START = """
import json, sys, time
from pathlib import Path
from model.dataset import load_exports

began = time.monotonic()
table = load_exports([Path(sys.argv[1])], Path(sys.argv[2]), jobs=int(sys.argv[3]))
print(json.dumps([len(table.records), len(table.problems), time.monotonic() - began]))
"""
ROOT = Path(__file__).parents[1]
FILMS_A_FOLDER = 10


@dataclass(frozen=True)
class Memory:
    """Bytes in memory; ``proportional`` counts what processes share once."""

    resident: int = 0
    proportional: int = 0

    def at_least(self, other: "Memory") -> "Memory":
        """The larger of each."""
        return Memory(
            max(self.resident, other.resident), max(self.proportional, other.proportional)
        )


@dataclass(frozen=True)
class Start:
    """One start of the reader in a process of its own.

    Attributes:
        records: images that it gave.
        problems: files that it could not use.
        seconds: that the reading took, without the start of Python.
        peak: largest memory of the process and its children.
        tenths: seconds at which each tenth of the images stood in the cache.
    """

    records: int
    problems: int
    seconds: float
    peak: "Memory"
    tenths: tuple[float, ...]


def write_films(folder: Path, count: int) -> None:
    """Write films of 64 x 64 pixels, each of its own study and patient, by exchanging UIDs."""
    uids = [f"2.25.{1:030d}", f"2.25.{2:030d}", f"2.25.{3:030d}"]
    dataset = phantom_dataset(
        draw_phantom(1, 64, 64),
        sop_instance_uid=uids[0],
        study_uid=uids[1],
        series_uid=uids[2],
        patient_id="P" + "0" * 29,
    )
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    film = buffer.getvalue()
    for number in range(count):
        parent = folder / f"{number // (1000 * FILMS_A_FOLDER):03d}" / f"{number // FILMS_A_FOLDER}"
        parent.mkdir(parents=True, exist_ok=True)
        written = film.replace(b"P" + b"0" * 29, b"P%029d" % number)
        for kind, uid in enumerate(uids, start=1):
            written = written.replace(uid.encode(), b"2.25.%d%029d" % (kind, number))
        (parent / f"IM{number:06d}").write_bytes(written)


def start(export: Path, cache: Path, jobs: int, instances: int) -> Start:
    """Read an export in a new process, and watch it."""
    command = [sys.executable, "-c", START, str(export), str(cache), str(jobs)]
    began = time.monotonic()
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        watch = Watch(process.pid, cache, instances, began)
        watcher = threading.Thread(target=watch.run)
        watcher.start()
        output, _ = process.communicate()
        watch.is_over.set()
        watcher.join()
    if process.returncode:
        raise SystemExit(f"the reader ended with status {process.returncode}")
    records, problems, seconds = json.loads(output)
    return Start(records, problems, seconds, watch.peak, tuple(watch.tenths))


class Watch:
    """Samples a process and what it has written."""

    def __init__(self, pid: int, cache: Path, instances: int, began: float) -> None:
        self.is_over = threading.Event()
        self.peak = Memory()
        self.tenths: list[float] = []
        self._pid, self._cache, self._instances, self._began = pid, cache, instances, began

    def run(self) -> None:
        """Sample until ``is_over``."""
        while not self.is_over.wait(0.2):
            self.peak = self.peak.at_least(memory_of(family(self._pid)))
            done = sum(path.stat().st_size for path in self._cache.glob("*/images.rows")) >> 16
            while done * 10 >= self._instances * (len(self.tenths) + 1):
                self.tenths.append(time.monotonic() - self._began)


def family(pid: int) -> Iterator[int]:
    """A process and all that came from it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        others = [
            task.read_text().split()
            for task in Path(f"/proc/{pid}/task").glob("*/children")
            if task.parent.name != str(pid)
        ]
    except OSError:
        return
    for child in {*children, *(one for some in others for one in some)}:
        yield from family(int(child))


def memory_of(pids: Iterable[int]) -> Memory:
    """Memory of processes; those that have ended have none."""
    kilobytes = {"Rss:": 0, "Pss:": 0}
    for pid in pids:
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        for name, value in (line.split()[:2] for line in lines[1:]):
            if name in kilobytes:
                kilobytes[name] += int(value)
    return Memory(kilobytes["Rss:"] << 10, kilobytes["Pss:"] << 10)


def print_rates(first: Start, instances: int) -> None:
    """Instances a second in each tenth of the export: equal rates are linear time."""
    before = 0.0
    for number, seconds in enumerate(first.tenths, start=1):
        rate = instances / 10 / (seconds - before)
        print(f"{10 * number:3d} %  {seconds:7.1f} s  {rate:7.0f} instances/s", flush=True)
        before = seconds


def main() -> None:
    """Measure, print a line for each tenth, and one JSON line at the end."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--instances", type=int, default=20_000)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path, help="also write the JSON line to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        export, cache = Path(folder, "export"), Path(folder, "cache")
        cache.mkdir()
        write_films(export, arguments.instances)
        first = start(export, cache, arguments.jobs, arguments.instances)
        print_rates(first, arguments.instances)
        second = start(export, cache, arguments.jobs, arguments.instances)
    figures = {
        "instances": arguments.instances,
        "jobs": arguments.jobs,
        "records": first.records,
        "seconds": round(first.seconds, 1),
        "instances_per_second": round(arguments.instances / first.seconds, 1),
        "peak_resident_mb": round(first.peak.resident / 1e6),
        "peak_proportional_mb": round(first.peak.proportional / 1e6),
        "second_start_seconds": round(second.seconds, 2),
        "second_start_peak_proportional_mb": round(second.peak.proportional / 1e6),
    }
    line = json.dumps(figures)
    print(line)
    if arguments.json:
        arguments.json.write_text(line + "\n")


if __name__ == "__main__":
    main()
