"""What a second start of a reproduction takes over from the first, and what not."""

import io
import json
import shutil
from dataclasses import replace

import pytest

from dicom_io.errors import CheckpointError, TrainingError
from model.evaluate import evaluate
from model.predictor import Predictor
from model.splits import divide_as_configured
from tests.model.grids import CELLS, films_of_elsewhere, films_to_learn_from, plan, reproduced
from tests.model.runs import state_hash

CELL = CELLS[1]
AT_ONCE = ("minutes=1e-9",)

# One process makes the grid that all of them look at.
pytestmark = pytest.mark.xdist_group("reproduce again")


@pytest.fixture(scope="module")
def learnt():
    return films_to_learn_from()


@pytest.fixture(scope="module")
def other():
    return films_of_elsewhere()


@pytest.fixture(scope="module")
def few(learnt, tmp_path_factory):
    """A grid of one run, of which three films are scored."""
    out = tmp_path_factory.mktemp("few")
    reproduced(plan(CELL, most_films=3), out, learnt)
    return out


@pytest.fixture
def out(few, tmp_path):
    return shutil.copytree(few, tmp_path / "grid")


def folder_of(out):
    return out / CELL.name / "seed-1"


def test_where_other_films_are_scored_the_kept_model_scores_them(learnt, other, out):
    page = (out / "table.md").read_text()
    assert "Films scored in-domain, never learnt from: 3 A val." in page
    assert "No more than 3 films" in page
    trained, printed = state_hash(folder_of(out)), io.StringIO()
    again = reproduced(plan(CELL), out, learnt, other, printed)
    assert state_hash(folder_of(out)) == trained
    assert "step" not in printed.getvalue()
    kept = Predictor.load(folder_of(out) / "model")
    for domain, report in (
        ("in-domain", evaluate(learnt, kept, split="val", full_size=False)),
        ("cross-domain", evaluate(other, kept, full_size=False)),
    ):
        figures = again.results[0].figures[domain]
        known = figures.keys() & report.keys()
        assert {"dice", "hd95_px", "images"} <= known
        assert {n: figures[n] for n in known} == {n: report[n] for n in known}
    assert {d: f["images"] for d, f in again.results[0].figures.items()} == {
        "in-domain": 6,
        "cross-domain": 8,
    }
    page = (out / "table.md").read_text()
    assert "Films scored in-domain, never learnt from: 6 A val." in page
    assert "No more than" not in page
    assert reproduced(plan(CELL), out, learnt, other).results == again.results


def test_only_what_is_not_known_is_scored(learnt, other, out):
    shutil.rmtree(folder_of(out) / "model")
    known = reproduced(plan(CELL, most_films=3), out, learnt)
    assert known.results[0].figures["in-domain"]["images"] == 3
    with pytest.raises(CheckpointError, match="cannot be read"):
        reproduced(plan(CELL, most_films=3), out, learnt, other)


def test_another_label_of_a_scored_film_gives_other_figures(learnt, out):
    before = reproduced(plan(CELL), out, learnt).results[0].figures["in-domain"]
    records = tuple(
        replace(r, label="pneumonia") if n == 14 else r for n, r in enumerate(learnt.records)
    )
    after = reproduced(plan(CELL), out, replace(learnt, records=records)).results[0]
    assert before["accuracy_always_pneumonia"] == 0.5
    assert after.figures["in-domain"]["accuracy_always_pneumonia"] == pytest.approx(4 / 6)


def test_an_export_that_was_moved_is_the_same(learnt, out):
    before = (folder_of(out) / "figures.json").stat()
    moved = tuple(replace(r, path=f"/moved{r.path}") for r in learnt.records)
    reproduced(plan(CELL, most_films=3), out, replace(learnt, records=moved))
    after = (folder_of(out) / "figures.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_other_films_to_learn_from_or_held_out_are_refused(learnt, out):
    config = plan(CELL).configs[CELL].model_copy(update={"seed": 1})
    pools = divide_as_configured(learnt.records, config)
    page = (out / "table.md").read_text()
    for row in (pools.labelled[0], pools.validation[0]):
        images = learnt.images.copy()
        images[row, 0, 0] ^= 1
        with pytest.raises(TrainingError, match="learnt from other images, masks or labels"):
            reproduced(plan(CELL, most_films=3), out, replace(learnt, images=images))
    # With other UIDs other films of the same ones are labelled.
    drawn = tuple(replace(r, sop_instance_uid=f"9.{n}") for n, r in enumerate(learnt.records))
    with pytest.raises(TrainingError, match="learnt from other images, masks or labels"):
        reproduced(plan(CELL, most_films=3), out, replace(learnt, records=drawn))
    assert (out / "table.md").read_text() == page


@pytest.mark.parametrize(("first", "second"), [(None, 5.0), (5.0, None), (5.0, 30.0)])
def test_another_time_limit_is_refused(learnt, out, first, second):
    path = folder_of(out) / "figures.json"
    stored = json.loads(path.read_text())
    path.write_text(json.dumps(stored | {"config": stored["config"] | {"minutes": first}}))
    same, another = (
        plan(CELL, settings=(f"minutes={json.dumps(limit)}",), most_films=3)
        for limit in (first, second)
    )
    assert reproduced(same, out, learnt).results
    with pytest.raises(TrainingError, match=rf"other settings \(minutes {first}, now {second}\)"):
        reproduced(another, out, learnt)


def test_a_run_that_ended_unscored_is_scored_without_another_step(learnt, tmp_path):
    first = reproduced(plan(CELL, settings=AT_ONCE), tmp_path, learnt)
    trained = state_hash(folder_of(tmp_path))
    (folder_of(tmp_path) / "figures.json").unlink()
    assert reproduced(plan(CELL, settings=AT_ONCE), tmp_path, learnt).results == first.results
    assert state_hash(folder_of(tmp_path)) == trained
    (folder_of(tmp_path) / "figures.json").unlink()
    images = learnt.images.copy()
    images[:14] ^= 1
    with pytest.raises(TrainingError, match="not the exports that the run was trained on"):
        reproduced(plan(CELL, settings=AT_ONCE), tmp_path, replace(learnt, images=images))


def test_a_time_limit_within_a_warm_up_says_so(learnt, tmp_path):
    stages = 'stages=[{"side":32,"steps":3,"restores":true},{"side":32,"steps":2}]'
    words = r"ended umtl-ssl-4-labels-2-masks, seed 1, at step 1 of the 3 of its self-supervised"
    for _ in range(2):
        with pytest.raises(TrainingError, match=words):
            reproduced(plan(CELL, settings=(stages, *AT_ONCE)), tmp_path, learnt)
