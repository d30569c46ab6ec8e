"""Hand a trained model over: a versioned directory that never changes, for a node to serve.

    python -m model.register RUN --data EXPORT [--data EXPORT ...] --out MODELS --version 1.0.0

MODELS/multimix-1.0.0 gets the best weights of the run, a gate that refuses what does not look like
the training films, and a card with the figures of every split that the run did not learn from, by
source, view, sex and age, and with the licences of the images it learnt from; where the exports
have no other split, the figures of the patients that the run held out, which are a little too good
since the verdict's threshold was chosen on them. All figures are of the model as it is served;
those of the validations during training stay in the run. A directory that exists is never written
again.
"""

import csv
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from dicom_io.errors import CheckpointError, TrainingError
from model.allocator import keep_freed_memory
from model.checkpoint import ModelCard, read_card, read_model, unlearnt, write_model
from model.command_line import Device, chosen_device, problems_explained
from model.dataset import load_exports
from model.evaluate import evaluate, evaluate_rows
from model.gate import write_gate
from model.gate_fitting import fit_gate
from model.image_table import ImageTable
from model.learnt_data import learnt_rows
from model.network import MultiMixNetwork
from model.predictor import Predictor
from model.run_folder import UNNAMED_SOURCE, read_config
from model.split_file import pools_of_run
from model.splits import Pools

DIRECTORY = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")
HELD_OUT_AS_SERVED = "held-out patients, as served"
UNSTATED = "unstated"
LIMITATIONS = (
    "Frontal chest radiographs only; other films must be rejected before they reach the model.",
    "Saliency shows where the input moves the answer, not where disease is.",
)
# What follows from having learnt from a public set, by words of its name.
LIMITATIONS_OF_SOURCES = {
    "NIH ChestX-ray14": "The pneumonia labels of the NIH films were mined from reports by a "
    "program; figures on adults are bounded by their errors.",
    "Kermany": "The films of Kermany et al. are of children of one to five years at one hospital; "
    "a model that saw no others tells pneumonia in adults no better than chance.",
    "v7labs": "The reference masks by v7labs include the lung behind the heart.",
}


def register(
    run: Path,
    table: ImageTable,
    licences: dict[str, str],
    out: Path,
    version: str,
    name: str | None = None,
    *,
    device: str = "cpu",
) -> Path:
    """Write the best model of a run as a versioned directory.

    Args:
        run: folder of a training run.
        table: the exports that it was trained on, all splits.
        licences: of images of ``table`` by SOP Instance UID, as ``read_licences`` gives them.
        out: folder of all models.
        version: of the model; part of every result's UID.
        name: of the model, to tell a variant apart; left as it is where None.
        device: torch device that fits the gate and scores the splits.

    Returns:
        The directory of the model.

    Raises:
        CheckpointError: the run has no model, the name is no name of a directory, or the version
            exists already.
        TrainingError: the run's configuration cannot be read, it learnt one task only, or the
            exports are not those of the run, so that gate and figures would be of something else.
    """
    card, folder = planned(run, out, version, name)
    network, _ = read_model(run / "model")
    config = read_config(run)
    pools = pools_of_run(run, table.records, config)
    learnt = learnt_rows(run, table, pools, config, card.training_data_sha256)
    known = described(card, version, count_licences(table, learnt, licences))
    with _finished_folder(folder) as unfinished:
        _fill(unfinished, network.to(device), known, table, pools, device)
    return folder


def planned(run: Path, out: Path, version: str, name: str | None) -> tuple[ModelCard, Path]:
    """The card of a run's model under the name that it is to have, and its directory to be.

    Args:
        run: see ``register``.
        out: see ``register``.
        version: see ``register``.
        name: see ``register``.

    Raises:
        CheckpointError: see ``register``.
        TrainingError: the run learnt one task only.
    """
    card = read_card(run / "model")
    if name is not None:
        card = card.model_copy(update={"name": name})
    folder = out / directory_name(card.name, version)
    if folder.exists():
        raise CheckpointError(f"{folder} exists; a registered model never changes, raise --version")
    if missing := unlearnt(card):
        raise TrainingError(
            f"{run} never learnt {' or '.join(missing)}, which a node has to answer; register a "
            "run that learnt both tasks"
        )
    return card, folder


@contextmanager
def _finished_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill; it gets its name once all its files are there, and is gone otherwise."""
    unfinished = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)  # of a process that was killed
    unfinished.mkdir(parents=True)
    try:
        yield unfinished
        for file in unfinished.iterdir():
            file.chmod(0o444)
        unfinished.rename(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill(
    folder: Path,
    network: MultiMixNetwork,
    card: ModelCard,
    table: ImageTable,
    pools: Pools,
    device: str,
) -> None:
    """Write gate, weights and the card with its figures."""
    gate = None
    fitted = fit_gate(network, table, pools, card.input_side)
    if fitted is not None:
        gate = fitted[0]
        card = card.model_copy(update={"gate": write_gate(folder, *fitted)})
    predictor = Predictor(network, card, device, gate)
    # Those of the run's validations are neither calibrated nor cut at the operating point, its
    # masks not cleaned: they chose the weights, and are not what a node delivers.
    metrics = rounded(_figures(table, pools, predictor))
    write_model(folder, network, card.model_copy(update={"metrics": metrics}))


def _figures(table: ImageTable, pools: Pools, predictor: Predictor) -> dict[str, Any]:
    """Of every split that the run did not learn from; without any, of the patients held out."""
    splits = sorted({r.split for r in table.records if r.split not in (None, "train")})
    if splits or not pools.validation:
        return {split: evaluate(table, predictor, split=split) for split in splits}
    report, _ = evaluate_rows(table, pools.validation, predictor, full_size=True)
    return {HELD_OUT_AS_SERVED: report}


def directory_name(name: str, version: str) -> str:
    """A model's directory: ``multimix-cc-by-1.0.0`` for ``MultiMix CC BY``.

    Raises:
        CheckpointError: something in it does not belong into the name of a directory.
    """
    directory = f"{name.lower().replace(' ', '-')}-{version}"
    if not DIRECTORY.fullmatch(directory):
        raise CheckpointError(
            f"{directory!r} cannot name a model directory; a version has lower-case letters and "
            "digits with single dots or hyphens between them, a name also capitals and spaces"
        )
    return directory


def described(card: ModelCard, version: str, licences: dict[str, dict[str, int]]) -> ModelCard:
    """The card of a run's model with what only the hand-over knows."""
    sources = {
        source: {"images": images, "licences": licences.get(source, {})}
        for source, images in card.training_data.items()
    }
    return card.model_copy(
        update={
            "version": version,
            "training_data": sources,
            "limitations": limitations_of(sources),
        }
    )


def limitations_of(sources: Iterable[str]) -> tuple[str, ...]:
    """What every model's reader has to know, and what follows from the sources learnt from."""
    names = " / ".join(sources)
    found = (text for words, text in LIMITATIONS_OF_SOURCES.items() if words in names)
    return (*LIMITATIONS, *found)


def count_licences(
    table: ImageTable, rows: Sequence[int], licences: dict[str, str]
) -> dict[str, dict[str, int]]:
    """How many of some rows stand under which licence, by source; sources without any are left out.

    Args:
        table: the images.
        rows: which of them, e.g. those that were learnt from.
        licences: by SOP Instance UID.
    """
    found: dict[str, Counter[str]] = {}
    for row in rows:
        record = table.records[row]
        counts = found.setdefault(record.source or UNNAMED_SOURCE, Counter())
        counts[licences.get(record.sop_instance_uid, UNSTATED)] += 1
    return {
        source: dict(counts.most_common())
        for source, counts in found.items()
        if set(counts) != {UNSTATED}
    }


def read_licences(exports: Sequence[Path]) -> dict[str, str]:
    """Licences by SOP Instance UID, from the ``attribution.csv`` of exports that have one.

    Raises:
        TrainingError: it is no table with the columns ``SOPInstanceUID`` and ``licence``.
    """
    found: dict[str, str] = {}
    for export in exports:
        table = export / "attribution.csv"
        if not table.exists():
            continue
        try:
            with table.open(newline="", encoding="utf-8-sig") as file:
                for row in csv.DictReader(file):
                    found[row["SOPInstanceUID"]] = row["licence"] or UNSTATED
        except (KeyError, UnicodeDecodeError, csv.Error) as cause:
            raise TrainingError(
                f"{table} is no UTF-8 table with the columns SOPInstanceUID and licence; mend or "
                "remove it"
            ) from cause
    return found


def rounded(value: Any) -> Any:
    """Floats to four decimals, everywhere in a JSON-ready object."""
    if isinstance(value, float):
        return round(value, 4)
    if isinstance(value, dict):
        return {name: rounded(inner) for name, inner in value.items()}
    return value


def main(
    run: Annotated[Path, typer.Argument(help="Folder of a training run.")],
    data: Annotated[list[Path], typer.Option(help="Export that the run was trained on.")],
    out: Annotated[Path, typer.Option(help="Folder of all models.")],
    version: Annotated[str, typer.Option(help="Version of the model.")],
    name: Annotated[str | None, typer.Option(help="Name of a variant; MultiMix if none.")] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder of preprocessed exports.")] = None,
    device: Device = "auto",
) -> None:
    """Hand a trained model over to a node."""
    keep_freed_memory()
    console = Console()
    with problems_explained(console):
        planned(run, out, version, name)  # before the exports are read, which may take long
        table = load_exports(data, cache)
        licences = read_licences(data)
        folder = register(run, table, licences, out, version, name, device=chosen_device(device))
    if read_card(folder).gate is None:
        console.print(
            "[yellow]warning: too few films to know what is usual, so the model has no gate and "
            "answers any image[/yellow]",
            soft_wrap=True,
        )
    console.print(
        f"{folder}\nserve it with MULTIMIX_MODEL_DIRECTORY={folder.absolute()}",
        markup=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    typer.run(main)
