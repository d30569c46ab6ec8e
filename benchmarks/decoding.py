"""What it costs to decode where a crash takes nothing down: the kept child beside the other ways.

    python -m benchmarks.decoding [--rounds 5]

Each film is opened and decoded in this process (fast, and a codec that crashes ends the worker), in
the node's kept child (``DecodingProcess``), and in a process that is started for each film (safe,
and what one would write first). The ways take turns. Ends with one line of JSON: median seconds a
film.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from pydicom import Dataset
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless
from rich.console import Console
from rich.table import Table

from dicom_io.decoding import DecodingProcess
from dicom_io.decoding_source import read_source
from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode

FILMS: Final = {
    "1024 px": (1024, ExplicitVRLittleEndian),
    "3000 px": (3000, ExplicitVRLittleEndian),
    "3000 px, RLE": (3000, RLELossless),
    "3000 px, JPEG 2000": (3000, JPEG2000Lossless),
}
Way = Callable[[Path], object]


def main() -> int:
    """Measure every film every way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="decoding-") as name, DecodingProcess() as child:
        ways: dict[str, Way] = {
            "this process": lambda path: decode(read_source(path)),
            "kept child": lambda path: child.decode(child.open(path)),
            "a process a film": in_new_process,
        }
        figures = {film: measure(written(Path(name), film), ways, rounds) for film in FILMS}
    show(figures)
    sys.stdout.write(json.dumps(figures) + "\n")
    return 0


def in_new_process(path: Path) -> object:
    """Start a process for this film alone."""
    with DecodingProcess() as process:
        return process.decode(process.open(path))


def written(folder: Path, film: str) -> Path:
    """A drawn film as a file."""
    side, transfer_syntax_uid = FILMS[film]
    dataset: Dataset = phantom_dataset(draw_phantom(1, side, side))
    if transfer_syntax_uid != ExplicitVRLittleEndian:
        dataset.compress(transfer_syntax_uid)
    path = folder / f"{side}-{transfer_syntax_uid}.dcm"
    dataset.save_as(path, enforce_file_format=True)
    return path


def measure(path: Path, ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Median seconds of each way, after one round to warm up."""
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(rounds + 1):
        for way, read in ways.items():
            began = time.perf_counter()
            read(path)
            seconds[way].append(time.perf_counter() - began)
    return {way: round(statistics.median(taken[1:]), 4) for way, taken in seconds.items()}


def show(figures: Mapping[str, Mapping[str, float]]) -> None:
    """The figures for people."""
    ways = list(next(iter(figures.values())))
    table = Table("film", *ways, title="seconds a film, opened and decoded")
    for film, seconds in figures.items():
        table.add_row(film, *(f"{seconds[way]:.3f}" for way in ways))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
