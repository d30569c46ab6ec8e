"""A run that begins by restoring damaged films, for which no label is needed."""

import csv

import pytest
import torch

from dicom_io.errors import TrainingError
from model import augment
from model.learner import learning_rate_at, new_learner, take_step
from model.local_contrast import local_contrast
from model.losses import restoration_loss
from model.presets import configure
from model.splits import divide
from model.streams import make_streams, seeded
from model.views import views_of_step
from tests.model.runs import run, short

CPU = torch.device("cpu")
STAGES = 'stages=[{"side":32,"steps":3,"restores":true},{"side":32,"steps":3}]'


def views(table, config, step):
    pools = divide(table.records, labels=4, masks=2, validation_share=0.1, seed=config.seed)
    return views_of_step(
        table, pools, make_streams(table.records, pools, config), config, step, CPU
    )


@pytest.mark.parametrize(
    "stages",
    [
        '[{"side":32,"steps":3},{"side":32,"steps":3,"restores":true}]',
        '[{"side":32,"steps":3,"restores":true}]',
    ],
)
def test_a_warm_up_comes_first_and_is_not_all(stages):
    with pytest.raises(TrainingError, match="stages that restore come first"):
        configure("best", overrides=(f"stages={stages}",))


@pytest.mark.parametrize("model", ["unet", "enc", "multimix"])
def test_its_steps_see_damaged_films_alone_and_as_many_as_any_other_step(table, model):
    config = configure(
        "best", model=model, overrides=(STAGES, "class_batch=3", "mask_batch=2", "dropout=0")
    )
    seen = views(table, config, 2)
    assert (seen.labelled, seen.masked, seen.unlabelled) == (None, None, None)
    later = views(table, config, 3)
    assert later.restored is None
    parts = [
        later.labelled.images if later.labelled else (),
        later.masked.images if later.masked else (),
        later.unlabelled.weak if later.unlabelled else (),
        later.unlabelled.strong if later.unlabelled else (),
    ]
    assert len(seen.restored.damaged) == len(seen.restored.whole) == sum(map(len, parts))


def test_it_learns_from_images_without_any_annotation(table):
    config = configure("best", model="enc", overrides=(STAGES,))
    pools = divide(table.records, labels=4, masks=2, validation_share=0.1, seed=0)
    rows = make_streams(table.records, pools, config).rows
    assert set(rows) == set(pools.unlabelled)
    assert not set(rows) & set(pools.validation)


def test_damage_hides_a_part_and_leaves_a_part_to_go_by(table):
    seen = views(table, configure("best", overrides=(STAGES,)), 0).restored
    hidden = (seen.damaged == 0).float().mean(dim=(1, 2, 3))
    assert 0.1 < float(hidden.mean()) < 0.4
    assert float(hidden.max()) < 0.9


def test_pixels_are_displaced_no_further_than_they_may():
    spot = torch.full((1, 1, 64, 64), -1.0)
    spot[0, 0, 32, 32] = 1.0
    for number in range(20):
        moved = augment.displace(spot, seeded(number), furthest=0.05)
        rows, columns = torch.nonzero(moved[0, 0] > -0.99, as_tuple=True)
        for place in (*rows.tolist(), *columns.tolist()):
            assert abs(place - 32) <= 0.05 * 64 + 1
    torch.testing.assert_close(augment.displace(spot, seeded(1), furthest=0.0), spot)


def test_what_is_wanted_is_the_films_local_contrast():
    films = torch.rand(2, 1, 64, 64, generator=seeded(1)) * 2 - 1
    contrast = local_contrast(films)
    assert float(restoration_loss(contrast, films)) == 0
    expected = float((contrast**2).mean())
    assert float(restoration_loss(torch.zeros_like(films), films)) == pytest.approx(expected)


def test_the_network_learns_to_restore(table):
    config = configure(
        "best",
        overrides=(
            'stages=[{"side":64,"steps":40,"restores":true},{"side":64,"steps":1}]',
            *("class_batch=4", "mask_batch=4", "unlabelled_batch=2", "precision=fp32"),
        ),
    )
    learner = new_learner(config, CPU)
    losses = []
    for step in range(config.warm_up_steps):
        terms = take_step(learner, views(table, config, step), config, step).losses
        assert set(terms) == {"restoration"}
        losses.append(terms["restoration"])
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_the_learning_rate_starts_anew_after_it():
    warm = 'stages=[{"side":32,"steps":100,"restores":true},{"side":32,"steps":400}]'
    config = configure("best", overrides=(warm,))
    plain = configure("best", overrides=('stages=[{"side":32,"steps":400}]',))
    rates = [learning_rate_at(config, step) for step in range(500)]
    assert rates[100:] == [learning_rate_at(plain, step) for step in range(400)]
    assert max(rates[:100]) == pytest.approx(config.learning_rate, rel=0.01)
    assert rates[99] < config.learning_rate / 100


def test_a_run_records_how_well_it_restores_and_keeps_no_model_of_it(table, tmp_path):
    printed = run(table, short("best", STAGES, "validate_every=2"), tmp_path)
    with (tmp_path / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [2, 3, 4, 6]
    assert all(float(row["mean_restoration"]) > 0 for row in rows[:2])
    assert [row["score"] for row in rows[:2]] == ["", ""]
    assert all(float(row["score"]) > 0 and not row["mean_restoration"] for row in rows[2:])
    assert "restoration" in printed
    assert (tmp_path / "model" / "card.json").exists()
    stopped = run(table, short("best", STAGES), tmp_path / "stopped", minutes=1e-9)
    assert "the time limit is reached, at step 1" in stopped
    assert not (tmp_path / "stopped" / "model").exists()
