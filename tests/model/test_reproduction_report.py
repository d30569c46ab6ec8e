import csv

import pytest

from model.config import configure
from model.reproduction_report import Grid, Result, markdown, write_tables
from model.table_grid import Cell


def result(model, seed, **figures):
    """A scored run whose figures are the same in both domains."""
    cell = Cell(model, 100, 10)
    config = configure("paper", model=model, overrides=(f"seed={seed}",))
    known = {"f1_normal": 0.7, "f1_pneumonia": 0.8, "auroc": 0.9, "iou": 0.8, "dice": 0.889}
    known |= {"accuracy_always_normal": 0.27, "accuracy_always_pneumonia": 0.73}
    scored = known | figures
    return Result(cell, config, 60.0, 100, {"in-domain": scored, "cross-domain": scored})


def page(*results):
    return "\n".join(markdown(Grid(results, "531 CheX val", "690 NIH test")))


def line(text, *words):
    (found,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return found


def test_a_figure_is_mean_and_spread_beside_the_papers():
    text = page(result("multimix", 1, accuracy=0.9), result("multimix", 2, accuracy=0.8))
    in_domain = text.split("## In-domain")[1].split("##")[0]
    assert "0.850 ± 0.071 (0.800)" in line(in_domain, "| multimix |")


def test_what_trivial_features_alone_reach_stands_beside_the_auroc():
    in_domain = page(result("multimix", 1, shortcut_auroc=0.75)).split("## In-domain")[1]
    assert "AUROC of trivial features alone" in line(in_domain.split("##")[0], "| model |")
    assert "0.750" in line(in_domain.split("##")[0], "| multimix |")


@pytest.mark.parametrize(
    ("ours", "theirs", "words"),
    [
        ([0.90, 0.91, 0.92], [0.80, 0.82, 0.81], "better by +0.100"),
        ([0.80, 0.82, 0.81], [0.90, 0.91, 0.92], "worse by -0.100"),
        ([0.80, 0.90, 0.85], [0.85, 0.84, 0.86], "no difference that these seeds can tell"),
    ],
)
def test_the_bridge_is_judged_seed_by_seed(ours, theirs, words):
    text = page(
        *(result("multimix", seed, iou=iou) for seed, iou in enumerate(ours)),
        *(result("umtl-ssl", seed, iou=iou) for seed, iou in enumerate(theirs)),
    )
    assert words in line(text, "MultiMix against UMTL-SSL", "in-domain, Jaccard")


def test_a_single_run_decides_nothing():
    text = page(result("multimix", 1, iou=0.9), result("umtl-ssl", 1, iou=0.1))
    assert "decides nothing" in line(text, "in-domain, Jaccard")


def test_rows_that_answer_a_constant_are_named():
    text = page(result("multimix", 1), result("umtl-ssl", 1, f1_normal=None))
    ours, theirs = line(text, "constant", "here:"), line(text, "The same in the paper")
    assert "umtl-ssl-100-labels-10-masks in-domain" in ours
    assert "multimix" not in ours
    assert theirs.endswith("none.")
    text = page(result("umtl", 1))
    assert "umtl-100-labels-10-masks cross-domain" in line(text, "The same in the paper")


def test_films_without_labels_make_no_row_a_constant():
    unlabelled = result("multimix", 1, f1_normal=None, f1_pneumonia=None, auroc=None)
    assert line(page(unlabelled), "constant", "here:").endswith("here: none.")


def test_constant_answers_and_what_differs_are_said():
    text = page(result("multimix", 1))
    assert "always pneumonia of 0.730" in line(text, "In-domain, always answering normal")
    assert "531 CheX val" in line(text, "Data learnt from")
    assert "an average in the paper" in line(text, "Hausdorff is")


def test_the_csv_holds_every_figure_once(tmp_path):
    grid = Grid((result("multimix", 1), result("multimix", 2)), "a", "b")
    write_tables(tmp_path, grid)
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    keys = [(r["model"], r["labels"], r["masks"], r["domain"], r["figure"]) for r in rows]
    assert len(keys) == len(set(keys))
    found = dict(zip(keys, rows, strict=True))
    iou = found["multimix", "100", "10", "in-domain", "iou"]
    assert (float(iou["mean"]), float(iou["sd"]), iou["seeds"], iou["paper"]) == (
        0.8,
        0.0,
        "2",
        "0.92",
    )
    accuracy = found["multimix", "100", "10", "in-domain", "accuracy"]
    assert (accuracy["mean"], accuracy["paper"]) == ("", "0.8")
    assert "# The paper's table" in (tmp_path / "table.md").read_text()
