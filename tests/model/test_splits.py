from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest

from dicom_io.errors import TrainingError
from model.presets import TABLE_MODELS
from model.splits import (
    divide,
    one_class_sources,
    require_annotations,
    require_disjoint_patients,
    training_rows_kept_away,
    without_one_class_labels,
)
from tests.model.films import record


def records(count=200, images_a_patient=2, **changes):
    return [
        record(number, patient=f"p{number // images_a_patient}", **changes)
        for number in range(count)
    ]


def pools_of(rows, *, labels=None, masks=None, share=0.2, seed=0):
    return divide(rows, labels=labels, masks=masks, validation_share=share, seed=seed)


def require_one_side(pools, whose):
    """Some are held out, some learnt from, and nobody is both."""
    held_out = {whose[row] for row in pools.validation}
    learnt = {whose[row] for row in pools.unlabelled}
    assert held_out
    assert learnt
    assert not held_out & learnt


def test_no_patient_is_both_learnt_from_and_held_out():
    rows = records()
    pools = pools_of(rows)
    require_one_side(pools, [row.patient for row in rows])
    assert {*pools.labelled, *pools.masked} <= set(pools.unlabelled)
    assert not set(pools.unlabelled) & set(pools.validation)


def test_about_the_asked_share_of_patients_is_held_out():
    rows = records(2000)
    assert len(pools_of(rows, share=0.2).validation) == pytest.approx(400, abs=80)


@pytest.mark.parametrize("seed", range(3))
def test_a_patient_is_on_one_side_however_the_institution_is_spelled(seed):
    spellings = ("St. Mary", "ST MARY HOSPITAL", "")
    rows = [record(n, patient=f"p{n // 3}", source=spellings[n % 3]) for n in range(90)]
    require_one_side(pools_of(rows, share=0.4, seed=seed), [row.patient for row in rows])


def test_who_is_held_out_stays_so_whatever_is_added_under_whatever_name():
    rows = records()
    few = {rows[row].patient for row in pools_of(rows).validation}
    for source in ("", "A.", "B"):
        more = [*records(count=100, source=source), *rows]
        many = {more[row].patient for row in pools_of(more).validation}
        assert few <= many
        assert len(many) < 50


def test_the_same_patients_are_held_out_whatever_other_patients_the_export_holds():
    rows = records()
    others = [replace(r, patient=f"other {r.patient}") for r in records(40, source="B")]
    more = [*others, *rows]
    few = {rows[row].sop_instance_uid for row in pools_of(rows).validation}
    many = {
        more[row].sop_instance_uid for row in pools_of(more).validation if more[row].source == "A"
    }
    assert few == many


@pytest.mark.parametrize("split", ["test", "val"])
def test_rows_of_another_split_are_never_used(split):
    rows = records()
    rows[:50] = [replace(row, split=split) for row in rows[:50]]
    pools = pools_of(rows)
    used = {*pools.labelled, *pools.masked, *pools.unlabelled, *pools.validation}
    assert min(used) >= 50


def test_a_film_without_split_goes_where_its_patient_is():
    rows = [*records(100), record(100, patient="p0", split=None)]
    rows[:2] = [replace(row, split="test") for row in rows[:2]]
    pools = pools_of(rows)
    assert not {0, 1, 100} & {*pools.unlabelled, *pools.validation}


def test_budgets_are_exact_and_nested():
    rows = records(400)
    budgets = [pools_of(rows, labels=n, masks=n) for n in (10, 50, 100)]
    assert [len(p.labelled) for p in budgets] == [10, 50, 100]
    assert [len(p.masked) for p in budgets] == [10, 50, 100]
    for small, large in pairwise(budgets):
        assert set(small.labelled) <= set(large.labelled)
        assert set(small.masked) <= set(large.masked)


def test_a_budget_keeps_the_proportion_of_the_classes():
    rows = [
        replace(row, label="normal" if number % 4 else "pneumonia")
        for number, row in enumerate(records(400, images_a_patient=1))
    ]
    pools = pools_of(rows, labels=40)
    counts = Counter(pools.classes[row] for row in pools.labelled)
    assert counts[0] == pytest.approx(30, abs=2)


@pytest.mark.parametrize("rare", ["normal", "pneumonia"])
def test_a_budget_has_both_classes_however_rare_one_is_and_stays_nested(rare):
    common = "normal" if rare == "pneumonia" else "pneumonia"
    rows = [
        replace(row, label=common if number % 25 else rare)
        for number, row in enumerate(records(1000, images_a_patient=1))
    ]
    for seed in range(3):
        budgets = [pools_of(rows, labels=n, seed=seed) for n in (2, 10, 100, 500)]
        of_rare = [sum(rows[row].label == rare for row in p.labelled) for p in budgets]
        assert of_rare[:2] == [1, 1]
        labelled = pools_of(rows, seed=seed).labelled
        share = sum(rows[row].label == rare for row in labelled) / len(labelled)
        assert of_rare[2:] == [pytest.approx(n * share, abs=1) for n in (100, 500)]
        assert [len(p.labelled) for p in budgets] == [2, 10, 100, 500]
        for small, large in pairwise(budgets):
            assert set(small.labelled) <= set(large.labelled)


def test_the_budget_hides_labels_but_not_images():
    pools = pools_of(records(400), labels=10, masks=10)
    assert len(pools.unlabelled) > 250


def test_an_image_drawn_for_its_mask_brings_no_label_beyond_the_budget():
    pools = pools_of(records(400), labels=10, masks=50)
    assert not set(pools.masked) <= set(pools.labelled)
    told = {row for row in pools.unlabelled if pools.classes[row] >= 0}
    assert told == set(pools.labelled)
    assert all(pools.classes[row] >= 0 for row in pools.validation)


def test_the_seed_decides_and_nothing_else_does():
    rows = records()
    assert pools_of(rows, labels=20, seed=3) == pools_of(rows, labels=20, seed=3)
    assert pools_of(rows, labels=20, seed=3) != pools_of(rows, labels=20, seed=4)


def test_labels_of_a_one_class_source_are_neither_trained_on_nor_scored():
    rows = [*records(100), *records(100, source="B", label="pneumonia")]
    assert one_class_sources(rows) == {"B"}
    pools = pools_of(rows)
    assert {rows[row].source for row in pools.labelled} == {"A"}
    assert all(pools.classes[row] == -1 for row in range(100, 200))
    assert {rows[row].source for row in pools.unlabelled} == {"A", "B"}
    assert {rows[row].source for row in pools.masked} == {"A", "B"}


def test_one_class_sources_stay_where_no_source_has_both():
    rows = [*records(20, label="normal"), *records(20, source="B", label="pneumonia")]
    assert one_class_sources(rows) == frozenset()
    assert without_one_class_labels(rows) == rows


def test_a_patient_in_two_splits_is_an_error_that_names_no_patient():
    rows = [record(1, patient="Doe"), record(2, patient="Doe", split="test")]
    with pytest.raises(TrainingError, match="1 patients are in two splits") as raised:
        require_disjoint_patients(rows)
    assert "Doe" not in str(raised.value)


@pytest.mark.parametrize("source", ["B", ""])
def test_a_patient_id_in_train_and_test_at_two_hospitals_is_no_error_and_not_trained_on(source):
    rows = [*records(100), record(100, patient="p3", source=source, split="test")]
    require_disjoint_patients(rows)
    pools = pools_of(rows)
    used = {rows[row].patient for row in (*pools.unlabelled, *pools.validation)}
    assert "p3" not in used
    assert len(used) == 49
    assert training_rows_kept_away(rows) == [6, 7]


@pytest.mark.parametrize("seed", range(3))
def test_films_of_a_study_without_patient_id_are_on_one_side(seed):
    rows = [record(n, patient="", study_uid=f"1.{n // 3}") for n in range(90)]
    require_one_side(pools_of(rows, share=0.4, seed=seed), [row.study_uid for row in rows])


def test_a_study_without_patient_id_in_two_splits_is_an_error():
    rows = [record(1, patient=""), record(2, patient="", study_uid="1.2.4.1", split="test")]
    with pytest.raises(TrainingError, match="1 patients are in two splits"):
        require_disjoint_patients(rows)


def test_films_without_patient_id_and_study_are_of_different_people():
    rows = [record(n, patient="", study_uid="", split=s) for n, s in enumerate(("train", "test"))]
    require_disjoint_patients(rows)


def test_nothing_to_learn_from_is_an_error():
    with pytest.raises(TrainingError, match="no training row has a label or a mask"):
        pools_of(records(20, label=None, has_mask=False))
    with pytest.raises(TrainingError, match="0 are of patients that are held out, 20 of another"):
        pools_of(records(20, split="test"))


def test_where_one_patient_id_stands_on_every_film_the_error_says_so():
    rows = records(6, images_a_patient=6)
    seed = next(s for s in range(100) if _is_error(rows, s))
    with pytest.raises(TrainingError, match=r"6 are of patients that are held out.*Patient ID"):
        pools_of(rows, seed=seed)


def _is_error(rows, seed):
    try:
        pools_of(rows, seed=seed)
    except TrainingError:
        return True
    return False


def test_a_task_without_annotations_is_refused_with_a_model_that_fits():
    unmasked, unlabelled = pools_of(records(has_mask=False)), pools_of(records(label=None))
    with pytest.raises(TrainingError, match="encssl"):
        require_annotations(unmasked, TABLE_MODELS["multimix"])
    with pytest.raises(TrainingError, match="unet"):
        require_annotations(unlabelled, TABLE_MODELS["multimix"])
    with pytest.raises(TrainingError, match="every label to learn from is pneumonia"):
        require_annotations(pools_of(records(label="pneumonia")), TABLE_MODELS["multimix"])
    with pytest.raises(TrainingError, match="raise --labels"):
        require_annotations(pools_of(records(), labels=1), TABLE_MODELS["enc"])
    require_annotations(pools_of(records(label="pneumonia")), TABLE_MODELS["unet"])
    require_annotations(unmasked, TABLE_MODELS["encssl"])
    require_annotations(unlabelled, TABLE_MODELS["unet"])
