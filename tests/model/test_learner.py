import math

import pytest
import torch

from dicom_io.errors import TrainingError
from model.learner import Learner, follow, learning_rate_at, new_learner, take_step
from model.network import MultiMixNetwork, NetworkShape
from model.presets import configure
from model.splits import Pools
from model.thresholds import thresholds_for
from model.validation import validate
from model.views import Batch, StepViews
from tests.model.films import film_table

CPU = torch.device("cpu")


def narrow_learner(config, **changes):
    torch.manual_seed(0)
    shape = vars(config.network_shape) | {"channels": (8, 16, 16, 32, 32)} | changes
    network = MultiMixNetwork(NetworkShape(**shape))
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    return Learner(network, network, optimizer, thresholds_for(config.pseudo_label_threshold))


def masked_views(table, side=64):
    images, masks = table.tensors(range(len(table.records)), side)
    classes = torch.tensor([record.class_index for record in table.records])
    return StepViews(None, Batch(images, masks, classes), None)


def test_four_films_are_learnt_by_heart():
    table = film_table(4)
    config = configure(
        "best",
        model="umtls",
        overrides=(
            'stages=[{"side":64,"steps":50}]',
            "learning_rate=0.02",
            "dropout=0",
            "teacher_decay=0",
            "precision=fp32",
        ),
    )
    learner, views = narrow_learner(config), masked_views(table)
    for step in range(config.total_steps):
        losses = take_step(learner, views, config, step).losses
    pools = Pools((), (), (), (0, 1, 2, 3), tuple(r.class_index for r in table.records))
    figures = validate(learner.network, table, pools, config.tasks, 64)
    assert set(losses) == {"dice", "mask_ce", "ce"}
    assert figures["dice"] > 0.98
    assert figures["auroc"] == 1.0


def test_a_step_gives_the_losses_and_moves_the_network():
    table = film_table(2)
    config = configure("paper", model="unet")
    learner = narrow_learner(config)
    before = [p.detach().clone() for p in learner.network.decoder.parameters()]
    losses = take_step(learner, masked_views(table, 32), config, 0).losses
    assert set(losses) == {"dice"}
    assert 0 < losses["dice"] < 5
    after = learner.network.decoder.parameters()
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_same_step_gives_the_same_bits(precision):
    table = film_table(2)
    config = configure("paper", model="umtls", overrides=(f"precision={precision}", "dropout=0.5"))

    def after_one_step():
        learner = narrow_learner(config)
        torch.manual_seed(99)  # whatever else has drawn random numbers
        take_step(learner, masked_views(table, 32), config, 3)
        return learner.network.state_dict()

    first, second = after_one_step(), after_one_step()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_loss_that_is_no_number_stops_the_run_and_spoils_nothing():
    table = film_table(2)
    config = configure("paper", model="unet")
    learner = narrow_learner(config)
    views = masked_views(table, 32)
    broken = StepViews(
        None,
        Batch(views.masked.images * float("nan"), views.masked.masks, views.masked.classes),
        None,
    )
    with pytest.raises(TrainingError, match="not finite at step 4"):
        take_step(learner, broken, config, 4)
    assert all(bool(torch.isfinite(p).all()) for p in learner.network.parameters())


def test_the_teacher_is_the_network_itself_unless_it_is_averaged():
    paper, best = (new_learner(configure(name), CPU) for name in ("paper", "best"))
    assert paper.teacher is paper.network
    assert best.teacher is not best.network
    assert not any(p.requires_grad for p in best.teacher.parameters())
    for slow, fast in zip(best.teacher.parameters(), best.network.parameters(), strict=True):
        assert torch.equal(slow, fast)


def test_the_teacher_moves_towards_its_student_fast_at_first():
    teacher, student = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for step, decay in ((0, 0.1), (10**6, 0.9)):
        with torch.no_grad():
            teacher.weight.fill_(0)
            student.weight.fill_(1)
        follow(teacher, student, 0.9, step)
        assert float(teacher.weight.detach()) == pytest.approx(1 - decay)


def test_weights_depend_on_the_seed():
    config = configure("paper")
    same = [new_learner(config, CPU).network.classifier.weight for _ in range(2)]
    other = new_learner(configure("paper", overrides=("seed=1",)), CPU).network.classifier.weight
    assert torch.equal(*same)
    assert not torch.equal(same[0], other)


def test_the_step_schedule_falls_by_ten_at_each_third():
    config = configure("paper", overrides=('stages=[{"side":32,"steps":300}]',))
    rates = [learning_rate_at(config, step) for step in (0, 98, 100, 199, 299)]
    assert rates == pytest.approx([1e-4, 1e-4, 1e-5, 1e-6, 1e-7])


@pytest.mark.parametrize("preset", ["paper", "best"])
def test_a_schedule_that_time_will_cut_short_ends_with_the_time(preset):
    config = configure(preset, overrides=('stages=[{"side":32,"steps":1000}]',))
    in_time = [learning_rate_at(config, 2 * n, time_gone=n / 500) for n in range(500)]
    assert in_time == [learning_rate_at(config, 2 * n) for n in range(500)]
    cut_short = [learning_rate_at(config, 20 + n, time_gone=n / 100) for n in range(100)]
    assert cut_short == pytest.approx(
        [learning_rate_at(config, max(20 + n, 10 * n)) for n in range(100)]
    )
    assert learning_rate_at(config, 20, time_gone=1.5) <= 2e-3 * config.learning_rate


def test_the_cosine_schedule_warms_up_and_ends_near_zero():
    config = configure("best", overrides=('stages=[{"side":32,"steps":1000}]',))
    rates = [learning_rate_at(config, step) for step in range(1000)]
    peak = max(rates)
    assert rates.index(peak) == 19
    assert peak == pytest.approx(config.learning_rate, rel=0.01)
    assert rates[0] < peak / 10
    assert rates[500] == pytest.approx(config.learning_rate / 2)
    assert 0 < rates[-1] < peak / 1000
    assert all(math.isfinite(rate) for rate in rates)


def test_a_later_stage_learns_at_a_full_rate_again_where_the_schedule_goes_by_stage():
    stages = 'stages=[{"side":32,"steps":200},{"side":64,"steps":50}]'
    by_stage = configure("best", overrides=(stages,))
    rates = [learning_rate_at(by_stage, step) for step in range(250)]
    for alone, part in ((200, rates[:200]), (50, rates[200:])):
        one = configure("best", overrides=(f'stages=[{{"side":32,"steps":{alone}}}]',))
        assert part == [learning_rate_at(one, step) for step in range(alone)]
    over_all = configure("best", overrides=(stages, "schedule=cosine"))
    assert learning_rate_at(over_all, 205) < 0.1 * rates[205]
