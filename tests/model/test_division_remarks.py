import io

from rich.console import Console

from model.division_remarks import tell_division
from model.presets import TABLE_MODELS
from model.splits import divide
from tests.model.films import record


def said(records, model="multimix", share=0.3):
    pools = divide(records, labels=None, masks=None, validation_share=share, seed=0)
    printed = io.StringIO()
    tell_division(records, pools, TABLE_MODELS[model], Console(file=printed, width=60))
    return printed.getvalue().splitlines(), pools


def films(count, first=0, **changes):
    return [record(first + number, **changes) for number in range(count)]


def test_the_start_says_of_what_films_are_held_out():
    records = [*films(30), *films(10, 30, label=None), *films(20, 40, has_mask=False)]
    (line,), pools = said(records)
    labelled = sum(records[row].label is not None for row in pools.validation)
    masked = sum(records[row].has_mask for row in pools.validation)
    assert 0 < labelled < len(pools.validation) > masked > 0
    assert line.endswith(
        f"{len(pools.validation)} held out ({labelled} labelled, {masked} with masks)"
    )


def test_a_task_without_anything_held_out_is_warned_of_and_another_task_is_not():
    records = [*films(1), *films(1, 1)]
    (_, verdict, masks), pools = said(records, share=1e-9)
    assert not pools.validation
    assert "no film labelled normal or pneumonia is held out" in verdict
    assert "no film with a mask is held out" in masks
    assert len(said(records, "unet", share=1e-9)[0]) == 2
    assert len(said(records, "enc", share=1e-9)[0]) == 2


def test_a_class_of_which_nothing_is_held_out_is_named():
    held_out = said(films(40))[1].validation
    records = [
        record(number, label="normal" if number in held_out or number % 2 else "pneumonia")
        for number in range(40)
    ]
    (_, verdict), _ = said(records)
    assert verdict.startswith("warning: no film labelled pneumonia is held out")


def test_sources_whose_labels_do_not_count_are_named_with_how_many():
    records = [
        *films(40),
        *films(7, 40, source="[b]St. Mary[/b]", label="normal"),
        *films(3, 50, source="", label="pneumonia"),
        *films(5, 60, source="C", label=None),
    ]
    (_, warning), _ = said(records)
    assert "the labels of [b]St. Mary[/b] (7), an unnamed source (3) do not count" in warning
    assert len(said(records, "unet")[0]) == 1


def test_training_films_of_a_patient_id_in_another_split_are_counted():
    records = [*films(40), record(99, patient="patient-7", source="B", split="test", label=None)]
    (_, warning), _ = said(records)
    assert warning.startswith("warning: 1 films of split train are left out")
    assert "patient-7" not in warning
