"""Films that harm whoever opens them, sent to a running node: each gets its reason, others go on.

The processes of this node are the real ones, but a ``sitecustomize`` module beside their packages
lets some films do to them what a broken decoder, or a network that never comes back, would.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydicom import Dataset, dcmread
from sqlalchemy import select

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.sender import send
from tests.dicom_io.test_decoding import deflated_bomb, uniform_film
from tests.worker.node_processes import processes_of
from tests.worker.nodes import ROOT, RunningNode, running_node, waited_for
from worker.database import Database
from worker.demo_pacs import StorageScpPacs
from worker.studies import StudyState
from worker.study_steps import FINAL_STATES
from worker.tables import Instance, Study

MOST_MIB = 1500
MISBEHAVIOUR = """
import ctypes, os, signal, sys, time

def misbehaving(decode):
    def decode_or_harm(dataset):
        match dataset.get("ImageComments"):
            case "segfault":
                ctypes.string_at(0)
            case "kill the worker":
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(60)
            case "hang":
                time.sleep(600)
        return decode(dataset)
    return decode_or_harm

def hanging(require_frontal_chest):
    def require_or_hang(dataset):
        if dataset.get("ImageComments") == "hang the reader":
            signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])  # as in a library's code
            time.sleep(600)
        return require_frontal_chest(dataset)
    return require_or_hang

if "reading" in sys.orig_argv:
    from dicom_io import eligibility
    eligibility.require_frontal_chest = hanging(eligibility.require_frontal_chest)

if "dicom_io.decoding_child" in sys.orig_argv:
    from dicom_io import pixels
    pixels.decode = misbehaving(pixels.decode)
"""


@pytest.fixture
def node(tmp_path: Path, pacs: StorageScpPacs) -> Iterator[RunningNode]:
    packages = tmp_path / "packages"
    shutil.copytree(ROOT / "dicom_io", packages / "dicom_io")  # the child looks beside its own file
    for name in ("model", "worker", "migrations", "alembic.ini"):
        (packages / name).symlink_to(ROOT / name)
    (packages / "sitecustomize.py").write_text(MISBEHAVIOUR)
    limits = {
        "lease_seconds": "3",
        "decode_time_limit_seconds": "5",
        "reading_time_limit_seconds": "30",
    }
    with running_node(tmp_path / "node", pacs, path=[packages], **limits) as running:
        yield running


def film(seed: int, comments: str = "") -> Dataset:
    dataset = phantom_dataset(draw_phantom(seed, 256, 256))
    dataset.ImageComments = comments
    return dataset


def end_of(node: RunningNode, dataset: Dataset) -> tuple[StudyState, str]:
    """How a study ended, and why; asked of the database, which costs the node nothing."""
    database = Database(f"sqlite:///{node.environment['MULTIMIX_HOME']}/node.sqlite")
    found = (
        select(Study.state, Study.reason)
        .join(Instance, Instance.study_key == Study.study_key)
        .where(Instance.sop_instance_uid == dataset.SOPInstanceUID, Study.state.in_(FINAL_STATES))
    )

    def ended() -> tuple[StudyState, str] | None:
        with database.reading() as session:
            row = session.execute(found).first()
        return (row.state, row.reason or "") if row else None

    try:
        return waited_for(ended, f"the end of {dataset.get('ImageComments') or 'a film'}", 150)
    finally:
        database.close()


@pytest.mark.timeout(600)
def test_films_that_harm_their_reader_are_set_aside_with_a_reason_and_others_go_on(
    node: RunningNode, pacs: StorageScpPacs
) -> None:
    poisons = {
        "segfault": "crashed",
        "hang": "took more than 5 s",
        "kill the worker": "its reading ended the worker 3 x",
        "hang the reader": "its reading ended the worker 3 x",
    }
    harmful = {comments: film(number, comments) for number, comments in enumerate(poisons)}
    good = [film(100), film(101)]
    for dataset in (*harmful.values(), *good):
        assert node.send(dataset)[0].status == 0x0000
    for dataset in good:
        assert end_of(node, dataset)[0] is StudyState.DONE
    for comments, dataset in harmful.items():
        state, reason = end_of(node, dataset)
        assert state is StudyState.FAILED
        assert poisons[comments] in reason
    # And the node still reads what comes after them.
    after = film(102)
    node.send(after)
    assert end_of(node, after)[0] is StudyState.DONE
    assert len(pacs.arrivals()) == 2 * 3


@pytest.mark.timeout(600)
def test_objects_that_expand_beyond_reason_are_refused_and_the_reader_stays_as_it_was(
    node: RunningNode, tmp_path: Path
) -> None:
    home = Path(node.environment["MULTIMIX_HOME"])
    first = film(200)
    node.send(first)
    assert end_of(node, first)[0] is StudyState.DONE
    readers = processes_of(home, "-Q", "reading")
    wide = uniform_film(12_000)
    deflated = dcmread(deflated_bomb(tmp_path / "bomb.dcm", gigabytes=2), stop_before_pixels=True)
    identify(deflated, film(201))
    for bomb in (wide, deflated):
        assert send([bomb], node.address)[0].status == 0x0000
        state, reason = end_of(node, bomb)
        assert state is StudyState.REJECTED, reason
    assert processes_of(home, "-Q", "reading") == readers
    for process in (*readers, *processes_of(home, "listen")):
        assert peak_mib(process) < MOST_MIB


def identify(dataset: Dataset, like: Dataset) -> None:
    """Give a bare object the identity of a chest film."""
    for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, like[keyword].value)
    dataset.file_meta.MediaStorageSOPInstanceUID = like.SOPInstanceUID
    dataset.Modality = "DX"


def peak_mib(process: int) -> float:
    fields = Path(f"/proc/{process}/status").read_text().split()
    return int(fields[fields.index("VmHWM:") + 1]) / 1024
