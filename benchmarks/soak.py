"""A node under steady load for a set time: throughput, latency, memory, and what was lost.

    python -m benchmarks.soak --minutes 10 --studies-per-minute 30

sends drawn films to a node of its own, which answers to a storage SCP on the same machine, and
prints a table and one line of JSON. ``lost`` counts films that were answered with success and have
no full set of results in the end, ``duplicated`` every result beyond that set, also where the same
one came a second time. Latency is from the response to the C-STORE of a study's film to the arrival
of the last of its results. Memory is the resident set of each part, its slope a least-squares line
over the second half of the run, when every part is warm.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections import defaultdict
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from pydicom import Dataset, dcmread
from rich.console import Console
from rich.table import Table

from dicom_io.errors import AssociationFailed
from dicom_io.phantom import draw_phantom, phantom_dataset
from tests.worker.node_processes import processes_of
from tests.worker.nodes import RunningNode, running_node
from worker.demo_pacs import Arrival, StorageScpPacs

PARTS = {
    "listener": ("listen",),
    "sweeper": ("sweep",),
    "readers": ("-Q", "reading"),
    "senders": ("-Q", "delivery"),
}
RESULTS_OF_A_FILM = 2
SAMPLE_SECONDS = 2.0
DRAIN_SECONDS = 300.0


@dataclass(frozen=True)
class Figures:
    """What the run came to; times in seconds, memory in MiB."""

    studies: int
    seconds: float
    studies_per_minute: float
    latency_median: float
    latency_95: float
    latency_99: float
    latency_slowest: float
    refused: int
    lost: int
    duplicated: int
    memory_at_end: dict[str, float]
    memory_slope_per_hour: dict[str, float]


def main() -> int:
    """Run by the command line's load and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--studies-per-minute", type=float, default=30.0)
    parser.add_argument("--side", type=int, default=512, help="rows and columns of a film")
    load = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="soak-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "pacs").mkdir()
        pacs = StorageScpPacs(folder / "pacs")
        with running_node(folder / "node", pacs) as node:
            figures = soak(node, pacs, load.minutes * 60, load.studies_per_minute, load.side)
        pacs.stop()
    show(figures)
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")
    return 1 if figures.lost or figures.duplicated else 0


def soak(
    node: RunningNode, pacs: StorageScpPacs, seconds: float, per_minute: float, side: int
) -> Figures:
    """Send at a steady rate, then wait until everything has arrived."""
    memory = MemoryRecord(Path(node.environment["MULTIMIX_HOME"]))
    memory.start()
    sent: dict[str, float] = {}
    number = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        film = phantom_dataset(draw_phantom(number, side, side))
        number += 1
        if was_taken(node, film):
            sent[str(film.SOPInstanceUID)] = time.time()
        time.sleep(max(0.0, began + number * 60 / per_minute - time.monotonic()))
    deadline = time.monotonic() + DRAIN_SECONDS
    while len(pacs.arrivals()) < RESULTS_OF_A_FILM * len(sent) and time.monotonic() < deadline:
        time.sleep(0.2)
    total = time.monotonic() - began
    memory.stop()
    return figures_of(sent, number - len(sent), arrivals_by_film(pacs), total, memory)


def was_taken(node: RunningNode, film: Dataset) -> bool:
    """Send a film; whether it was answered with success."""
    try:
        (outcome,) = node.send(film)
    except AssociationFailed:
        return False
    return outcome.status == 0x0000


def arrivals_by_film(pacs: StorageScpPacs) -> dict[str, list[Arrival]]:
    """The results of each film that arrived."""
    arrived: dict[str, list[Arrival]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "result.dcm"
        for uid, arrival in pacs.arrivals().items():
            pacs.fetch(uid, path)
            arrived[_film_of(path)].append(arrival)
    return arrived


def _film_of(path: Path) -> str:
    """The film that a result refers to."""
    result = dcmread(path, stop_before_pixels=True)
    if "SourceImageSequence" in result:
        return str(result.SourceImageSequence[0].ReferencedSOPInstanceUID)
    series = result.ReferencedSeriesSequence[0]
    return str(series.ReferencedInstanceSequence[0].ReferencedSOPInstanceUID)


class MemoryRecord(threading.Thread):
    """Samples the resident set of each part."""

    def __init__(self, home: Path) -> None:
        super().__init__(daemon=True)
        self._home = home
        self._end = threading.Event()
        self.samples: dict[str, list[tuple[float, float]]] = defaultdict(list)

    def run(self) -> None:
        """Sample until told to stop."""
        while not self._end.wait(SAMPLE_SECONDS):
            for part, words in PARTS.items():
                resident = sum(map(_resident_mib, processes_of(self._home, *words)))
                self.samples[part].append((time.monotonic(), resident))

    def stop(self) -> None:
        """End the sampling."""
        self._end.set()
        self.join()

    def slope_per_hour(self, part: str) -> float:
        """MiB by which a part grows in an hour, by the second half of the samples."""
        half = np.array(self.samples[part][len(self.samples[part]) // 2 :])
        return float(np.polyfit(half[:, 0], half[:, 1], 1)[0] * 3600) if len(half) > 2 else 0.0


def _resident_mib(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/status").read_text().split()
        return int(fields[fields.index("VmRSS:") + 1]) / 1024
    except (OSError, ValueError):
        return 0.0


def figures_of(
    sent: dict[str, float],
    refused: int,
    arrived: dict[str, list[Arrival]],
    seconds: float,
    memory: MemoryRecord,
) -> Figures:
    """Put numbers on the run."""
    latencies = [
        max(arrival.at for arrival in arrived[film]) - at
        for film, at in sent.items()
        if len(arrived.get(film, ())) >= RESULTS_OF_A_FILM
    ] or [float("nan")]
    median, p95, p99 = (float(np.percentile(latencies, p)) for p in (50, 95, 99))
    return Figures(
        studies=len(sent),
        seconds=round(seconds, 1),
        studies_per_minute=round(60 * len(sent) / seconds, 1),
        latency_median=round(median, 2),
        latency_95=round(p95, 2),
        latency_99=round(p99, 2),
        latency_slowest=round(max(latencies), 2),
        refused=refused,
        lost=sum(len(arrived.get(film, ())) < RESULTS_OF_A_FILM for film in sent),
        duplicated=sum(
            max(0, sum(arrival.times for arrival in found) - RESULTS_OF_A_FILM)
            for found in arrived.values()
        ),
        memory_at_end={part: round(found[-1][1]) for part, found in memory.samples.items()},
        memory_slope_per_hour={part: round(memory.slope_per_hour(part), 1) for part in PARTS},
    )


def show(figures: Figures) -> None:
    """The figures for people."""
    table = Table("figure", "value", title="a node under steady load")
    for name, value in asdict(figures).items():
        rows = value.items() if isinstance(value, dict) else [("", value)]
        for part, number in rows:
            table.add_row(f"{name} {part}".strip(), str(number))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
