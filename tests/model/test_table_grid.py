import pytest

from dicom_io.errors import TrainingError
from model.presets import TABLE_MODELS
from model.table_grid import Cell, paper_figures, parse_budget, table_cells


def test_the_papers_budgets_give_the_papers_54_rows_in_its_order():
    cells = table_cells(list(TABLE_MODELS), [100, 1000, None], [10, 50, None])
    assert {(c.model, *c.budgets, "in-domain") for c in cells} == {
        key for key in paper_figures() if key[3] == "in-domain"
    }
    assert len(cells) == 54
    assert list(dict.fromkeys(c.model for c in cells)) == list(TABLE_MODELS)


def test_a_budget_counts_only_where_its_task_is():
    assert table_cells(["unet"], [100, None], [10]) == [Cell("unet", None, 10)]
    assert table_cells(["enc"], [100], [10, 50]) == [Cell("enc", 100, None)]
    assert Cell("unet", None, None).budgets == ("", "all")
    assert Cell("multimix", 100, 10).name == "multimix-100-labels-10-masks"


def test_a_budget_or_model_that_is_given_twice_is_one_row():
    twice = table_cells(["multimix", "multimix"], [100, 100, None], [10, 10])
    assert twice == [Cell("multimix", 100, 10), Cell("multimix", None, 10)]


def test_the_paper_is_transcribed_as_it_is_printed():
    figures = paper_figures()
    best = figures["multimix", "100", "10", "in-domain"]
    assert (best["accuracy"], best["dice"], best["iou"]) == (0.8, 0.954, 0.92)
    assert figures["multimix", "all", "10", "in-domain"]["auroc"] == 0.946
    assert figures["umtl-ssl", "100", "10", "cross-domain"]["iou"] == 0.778
    assert "auroc" not in best  # the slides leave this row out
    assert best["auroc_figure_6"] == 0.806
    assert (best["mask_precision"], best["mask_recall"]) == (0.949, 0.969)


@pytest.mark.parametrize(("text", "budget"), [("10", 10), ("all", None)])
def test_budgets_are_numbers_or_all(text, budget):
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "0", "-1", "ten", "1.5"])
def test_other_budgets_are_refused(text):
    with pytest.raises(TrainingError, match="a budget is a number or 'all'"):
        parse_budget(text)


def test_an_unknown_model_is_named():
    with pytest.raises(TrainingError, match="resnet"):
        table_cells(["unet", "resnet"], [None], [None])
