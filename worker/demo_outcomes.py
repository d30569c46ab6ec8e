"""What became of the demonstration's studies: what the node says, beside what the PACS holds."""

from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydicom import dcmread
from sqlalchemy import select

from dicom_io.errors import MultiMixError
from dicom_io.uids import ResultKind
from worker.database import Database
from worker.demo_pacs import ReceivingPacs
from worker.demo_studies import StudyToSend
from worker.studies import StudyState
from worker.tables import Inference, Instance, Result, Study


@dataclass(frozen=True)
class Outcome:
    """What the node says of one study, as it stands in its database.

    Attributes:
        state: of the study.
        reason: why it was rejected or failed.
        verdict: of the film most suspicious of pneumonia.
        probability: of that film.
        lung_area_percent: of that film.
        lung_area_cm2: of that film, where Pixel Spacing allows.
        result_uids: SOP Instance UIDs of the results that were to be sent, by kind.
    """

    state: StudyState
    reason: str
    verdict: str
    probability: float | None
    lung_area_percent: float | None
    lung_area_cm2: float | None
    result_uids: tuple[tuple[ResultKind, str], ...]


@dataclass(frozen=True)
class Row:
    """One line of the table, and of ``DEMO_JSON``.

    Attributes:
        study: its name for the reader.
        study_uid: its Study Instance UID.
        state: where the node left it.
        verdict: of the network, or why there is none.
        probability: of pneumonia, calibrated.
        lung_area_percent: of the film.
        lung_area_cm2: where Pixel Spacing allows.
        seconds: from its last C-STORE to its last result in the PACS.
        results: paths of the fetched result files.
        overlays: paths of the pictures made of them.
        complaint: what is wrong; empty where everything is as it must be.
    """

    study: str
    study_uid: str
    state: str
    verdict: str
    probability: float | None
    lung_area_percent: float | None
    lung_area_cm2: float | None
    seconds: float | None
    results: tuple[str, ...]
    overlays: tuple[str, ...]
    complaint: str


def ask(study: StudyToSend, database: Database) -> Outcome | None:
    """What the node's database says of a study, or None where it knows nothing of it."""
    with database.reading() as session:
        row = session.scalar(select(Study).where(Study.study_uid == study.study_uid))
        if row is None:
            return None
        inferences = session.scalars(
            select(Inference).join(Instance).where(Instance.study_key == row.study_key)
        ).all()
        made = session.execute(
            select(Result.kind, Result.sop_instance_uid)
            .where(Result.study_key == row.study_key)
            .where(Result.deliveries.any())
        ).all()
        read = [i for i in inferences if i.probability is not None and i.verdict is not None]
        worst = max(read, key=lambda inference: inference.probability or 0.0, default=None)
        return Outcome(
            state=row.state,
            reason=row.reason or "",
            verdict=worst.verdict.value if worst and worst.verdict else "",
            probability=worst.probability if worst else None,
            lung_area_percent=worst.lung_area_percent if worst else None,
            lung_area_cm2=worst.lung_area_cm2 if worst else None,
            result_uids=tuple((kind, uid) for kind, uid in made),
        )


def make_row(
    study: StudyToSend, sent_at: float, database: Database, pacs: ReceivingPacs, folder: Path
) -> Row:
    """Compare what the node says of a study with what the PACS holds, and fetch it.

    Args:
        study: as it was sent.
        sent_at: ``time.time()`` of its last C-STORE response.
        database: the node's.
        pacs: where the results went.
        folder: where fetched results and pictures are put.

    Raises:
        MultiMixError: the study never reached the node.
    """
    outcome = ask(study, database)
    if outcome is None:
        raise MultiMixError(f"{study.name} never reached the node")
    arrivals = pacs.arrivals()
    arrived = [(kind, uid) for kind, uid in outcome.result_uids if uid in arrivals]
    results, overlays = fetch(arrived, pacs, folder / study.name)
    last = max((arrivals[uid].at for _, uid in arrived), default=None)
    return Row(
        study=study.name,
        study_uid=study.study_uid,
        state=outcome.state.value,
        verdict=outcome.verdict or outcome.reason,
        probability=outcome.probability,
        lung_area_percent=outcome.lung_area_percent,
        lung_area_cm2=outcome.lung_area_cm2,
        seconds=round(last - sent_at, 2) if last is not None else None,
        results=tuple(map(str, results)),
        overlays=tuple(map(str, overlays)),
        complaint=complaint_about(study, outcome, arrived),
    )


def complaint_about(
    study: StudyToSend, outcome: Outcome, arrived: list[tuple[ResultKind, str]]
) -> str:
    """What is wrong with a study's outcome; empty where all is as it must be."""
    kinds = {kind for kind, _ in arrived}
    complete = {ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE} <= kinds
    if outcome.state is StudyState.FAILED:
        return f"failed: {outcome.reason}"
    if len(arrived) != len(outcome.result_uids):
        return f"{len(outcome.result_uids) - len(arrived)} results did not arrive"
    if study.must_be_rejected and (outcome.state is not StudyState.REJECTED or arrived):
        return "no chest film, yet it was read"
    if study.must_have_results and not complete:
        return "a chest film without mask and saliency image"
    if outcome.state is StudyState.DONE and not complete:
        return "done without mask and saliency image"
    return ""


def fetch(
    arrived: list[tuple[ResultKind, str]], pacs: ReceivingPacs, folder: Path
) -> tuple[list[Path], list[Path]]:
    """Fetch a study's results from the PACS, and each Secondary Capture as a picture too."""
    folder.mkdir(parents=True, exist_ok=True)
    results, overlays = [], []
    for kind, uid in arrived:
        path = folder / f"{kind.name.lower()}-{uid[-8:]}.dcm"
        pacs.fetch(uid, path)
        results.append(path)
        if kind is ResultKind.SECONDARY_CAPTURE:
            overlays.append(path.with_suffix(".png"))
            Image.fromarray(dcmread(path).pixel_array).save(overlays[-1])
    return results, overlays
