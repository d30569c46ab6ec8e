import io

import numpy as np
import pytest
from rich.console import Console
from scipy.optimize import minimize

from model.image_table import ImageTable
from model.shortcuts import (
    FOLDS,
    find_shortcuts,
    fit_logistic,
    score_by_shortcuts,
    warn_of_shortcuts,
)
from model.splits import divide
from model.trivial_features import FEATURES, encode, read_trivial_features
from tests.model.films import record

SIDE = 16


def noise_table(count, *, label_of=lambda n: n % 2, image_of=None, **facts):
    """Films of pure noise; ``facts`` are functions of the film's number."""
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (count, SIDE, SIDE)).astype(np.uint8)
    if image_of is not None:
        images = np.stack([image_of(number, image) for number, image in enumerate(images)])
    records = tuple(
        record(
            number,
            label=("normal", "pneumonia")[label_of(number)],
            **{name: value(number) for name, value in facts.items()},
        )
        for number in range(count)
    )
    return ImageTable(records, images, np.zeros_like(images), ())


def shortcuts_of(table):
    return find_shortcuts(table, range(len(table.records)), [r.class_index for r in table.records])


def test_a_view_that_gives_the_label_away_is_found():
    found = shortcuts_of(noise_table(100, view=lambda n: "AP Supine" if n % 2 else "PA"))
    assert found.auroc_of["view"] == 1.0
    assert found.auroc > 0.95
    assert next(iter(found.suspicious.values())) == 1.0
    assert {"all together", "view"} <= set(found.suspicious)


@pytest.mark.parametrize("fact", ["source", "sender", "manufacturer", "station", "sex"])
def test_a_sender_or_machine_that_gives_the_label_away_is_found(fact):
    found = shortcuts_of(noise_table(60, **{fact: lambda n: "FM"[n % 2]}))
    assert found.auroc_of[fact] == 1.0
    assert fact in found.suspicious


@pytest.mark.parametrize("darker_is_ill", [True, False])
def test_a_darker_film_is_found_whichever_class_is_dark(darker_is_ill):
    def exposed(number, image):
        return image // 2 if bool(number % 2) == darker_is_ill else image

    found = shortcuts_of(noise_table(60, image_of=exposed))
    assert found.auroc_of["mean intensity"] == 1.0
    assert found.auroc > 0.95


def test_ages_of_children_and_adults_are_found_though_some_are_unknown():
    random = np.random.default_rng(1)
    ages = [None if n % 5 == 0 else float(random.normal(5 + 40 * (n % 2), 3)) for n in range(100)]
    found = shortcuts_of(noise_table(100, age_years=ages.__getitem__))
    # Films of unknown age (a fifth) are told apart by chance alone.
    assert found.auroc_of["age"] == pytest.approx(1 - 0.2 + 0.2 * 0.8, abs=0.06)


@pytest.mark.parametrize("of_the_known", [0, 1])
def test_an_age_that_is_recorded_for_one_class_only_is_found(of_the_known):
    found = shortcuts_of(
        noise_table(100, age_years=lambda n: 40.0 + n % 7 if n % 2 == of_the_known else None)
    )
    assert found.auroc_of["age"] > 0.95
    assert "age" in found.suspicious


def test_ages_that_are_recorded_by_chance_are_not_suspicious():
    random = np.random.default_rng(5)
    ages = [None if random.random() < 0.3 else float(random.integers(1, 90)) for _ in range(600)]
    found = shortcuts_of(noise_table(600, age_years=ages.__getitem__))
    assert found.auroc_of["age"] < 0.6


def test_features_that_never_vary_predict_nothing_at_all():
    found = shortcuts_of(noise_table(80))
    never = {*FEATURES} - {"mean intensity", "sharpness"}
    assert {found.auroc_of[name] for name in never} == {0.5}
    assert set(found.auroc_of) == set(FEATURES)


def test_features_that_vary_by_chance_are_near_a_half():
    random = np.random.default_rng(3)
    labels = random.integers(0, 2, 600)
    views, sexes = random.integers(0, 3, 600), random.integers(0, 2, 600)
    found = shortcuts_of(
        noise_table(
            600,
            label_of=labels.__getitem__,
            view=lambda n: ("PA", "AP", "")[views[n]],
            sex=lambda n: "FM"[sexes[n]],
        )
    )
    assert 0.4 < found.auroc < 0.6
    assert not found.suspicious


@pytest.mark.parametrize(
    "spellings", [("St. Mary",), ("St. Mary", "ST MARY HOSPITAL")], ids=["one name", "two names"]
)
def test_one_patient_is_never_on_both_sides_of_a_fit_however_the_institution_is_spelled(spellings):
    """Every patient has a label and a manufacturer of its own, so knowing one is knowing both."""
    random = np.random.default_rng(4)
    labels = random.integers(0, 2, 50)
    table = noise_table(
        200,
        label_of=lambda n: labels[n // 4],
        patient=lambda n: f"patient-{n // 4}",
        manufacturer=lambda n: f"maker-{n // 4}",
        source=lambda n: spellings[n % len(spellings)],
    )
    assert shortcuts_of(table).auroc_of["manufacturer"] == pytest.approx(0.5, abs=0.1)


def test_too_few_films_of_a_class_give_no_figure():
    table = noise_table(100, label_of=lambda n: int(n < 9))
    assert shortcuts_of(table) is None
    classes = [r.class_index for r in table.records]
    assert score_by_shortcuts(table, range(100), classes) is None


def test_an_evaluated_split_is_scored_by_a_fit_on_the_others():
    table = noise_table(
        120, view=lambda n: "AP" if n % 2 else "PA", split=lambda n: "test" if n < 40 else "train"
    )
    classes = [r.class_index for r in table.records]
    scores = score_by_shortcuts(table, range(40), classes)
    assert scores.fitted_on == "80 labelled images outside the evaluated ones"
    assert sorted(scores.of_row) == list(range(40))
    ill = [scores.of_row[row] for row in range(1, 40, 2)]
    healthy = [scores.of_row[row] for row in range(0, 40, 2)]
    assert min(ill) > max(healthy)
    # What the evaluated films are labelled does not enter their scores.
    swapped = [1 - c if row < 40 else c for row, c in enumerate(classes)]
    assert score_by_shortcuts(table, range(40), swapped).of_row == scores.of_row


def test_without_other_labels_the_fit_is_cross_validated_and_says_so():
    table = noise_table(60, view=lambda n: "AP" if n % 2 else "PA")
    classes = [r.class_index for r in table.records]
    scores = score_by_shortcuts(table, range(60), classes)
    assert "cross-validated by patient" in scores.fitted_on
    assert len(scores.of_row) == 60


def test_other_films_of_an_evaluated_patient_are_not_fitted_on():
    table = noise_table(60, patient=lambda n: f"patient-{n % 30}")
    classes = [r.class_index for r in table.records]
    assert "cross-validated" in score_by_shortcuts(table, range(30), classes).fitted_on


def test_the_logistic_fit_is_the_minimum_of_its_loss():
    random = np.random.default_rng(5)
    columns = random.normal(size=(40, 3))
    labels = (columns[:, 0] + random.normal(size=40) > 0.3).astype(np.int64)

    def loss(parameters):
        margins = columns @ parameters[:3] + parameters[3]
        probabilities = 1 / (1 + np.exp(-margins))
        likelihood = np.where(labels == 1, probabilities, 1 - probabilities)
        return -np.log(likelihood).sum() + 1.0 * (parameters[:3] ** 2).sum()

    slow = minimize(
        loss, np.zeros(4), method="Nelder-Mead", options={"maxiter": 9000, "xatol": 1e-8}
    )
    np.testing.assert_allclose(fit_logistic(columns, labels, penalty=2.0), slow.x[:3], atol=1e-3)


def test_columns_are_centred_on_the_fitted_films_and_only_know_their_words():
    table = noise_table(30, view=lambda n: ("PA", "AP", "rare")[min(n // 10, 2)])
    fitted = np.arange(20)
    columns = encode(read_trivial_features(table, range(30)), fitted, ("view",))
    assert columns.shape == (30, 2)
    np.testing.assert_allclose(columns[fitted].mean(0), 0, atol=1e-12)


def test_the_trainer_warns_with_the_features_names():
    table = noise_table(100, view=lambda n: "AP" if n % 2 else "PA")
    assert "warning" in said_of(table)
    assert "view 1.00" in said_of(table)
    random = np.random.default_rng(6)
    labels = random.integers(0, 2, 600)
    quiet = said_of(noise_table(600, label_of=labels.__getitem__))
    assert "predict the label with an AUROC of 0." in quiet
    assert "warning" not in quiet
    assert "too few labels" in said_of(noise_table(FOLDS))


def said_of(table):
    printed = io.StringIO()
    pools = divide(table.records, labels=None, masks=None, validation_share=0.2, seed=0)
    warn_of_shortcuts(table, pools, Console(file=printed, width=500))
    return printed.getvalue()
