import csv
from dataclasses import replace

import pytest

from model.presets import configure
from model.reproduction_report import markdown, write_tables
from model.reproduction_results import Grid, Result
from model.table_grid import Cell, paper_figures


def result(model, seed, *, labels=100, masks=10, learnt=(100, 10), settings=(), **figures):
    """A scored run whose figures are the same in both domains."""
    cell = Cell(model, labels, masks)
    config = configure("paper", model=model, overrides=(f"seed={seed}", *settings))
    known = {"f1_normal": 0.7, "f1_pneumonia": 0.8, "auroc": 0.9, "iou": 0.8, "dice": 0.889}
    known |= {"accuracy_always_normal": 0.27, "accuracy_always_pneumonia": 0.73}
    scored = known | figures
    by_domain = {"in-domain": scored, "cross-domain": scored}
    return Result(cell, config, 60.0, 100, by_domain, *learnt)


SCORED = {"in-domain": "531 CheX val", "cross-domain": "690 NIH test"}


def page(*results):
    return "\n".join(markdown(Grid(results, "4,000 CheX train", SCORED)))


def line(text, *words):
    (found,) = [line for line in text.splitlines() if all(word in line for word in words)]
    return found


def test_a_figure_is_mean_and_spread_beside_the_papers():
    text = page(result("multimix", 1, accuracy=0.9), result("multimix", 2, accuracy=0.8))
    in_domain = text.split("## In-domain")[1].split("##")[0]
    assert "0.850 ± 0.071 (0.800)" in line(in_domain, "| multimix |")


def test_every_column_of_the_paper_stands_beside_ours():
    masked = {"mask_precision": 0.5, "mask_recall": 0.25, "hausdorff_px": 9.0, "ssim": 0.75}
    text = page(result("multimix", 1, accuracy=0.9, **masked), result("multimix", 2))
    in_domain = text.split("## In-domain")[1].split("##")[0]
    names, found = (
        [cell.strip() for cell in line(in_domain, start).strip("|").split("|")]
        for start in ("| model |", "| multimix |")
    )
    shown = dict(zip(names, found, strict=True))
    papers = {
        "accuracy": "(0.800)",
        "F1 normal": "(0.594)",
        "F1 pneumonia": "(0.856)",
        "AUROC in the paper's figure 6": "(0.806)",
        "Dice": "(0.954)",
        "Jaccard": "(0.920)",
        "precision of the mask": "(0.949)",
        "recall of the mask": "(0.969)",
        "Hausdorff, px": "(0.7)",
        "SSIM": "(0.938)",
    }
    assert {name: shown[name][-len(value) :] for name, value in papers.items()} == papers
    assert shown["precision of the mask"].startswith("0.500")
    assert shown["recall of the mask"].startswith("0.250")
    assert shown["AUROC"] == "0.900 ± 0.000"  # the slides leave this row out
    assert shown["runs"] == "2"


def test_budgets_that_the_data_does_not_fill_are_named():
    text = page(
        result("multimix", 1, labels=1000, masks=50, learnt=(231, 50)),
        result("multimix", 1, labels=None, masks=None, learnt=(231, 227)),
        result("multimix", 2, labels=None, masks=None, learnt=(240, 230)),
        result("unet", 1, masks=10, learnt=(100, 10)),
    )
    assert line(text, "All labels").endswith("231 to 240 here.")
    assert line(text, "All masks").endswith("227 to 230 here.")
    assert line(text, "fewer labels").endswith("budget: multimix-1000-labels-50-masks (231).")
    assert "fewer masks" not in text
    unknown = page(result("multimix", 1, labels=1000, learnt=(None, None)))
    assert "fewer" not in unknown


def test_settings_that_are_not_the_papers_are_named():
    assert "Other settings than the paper's: none." in page(result("multimix", 1))
    text = page(result("multimix", 1, settings=("class_batch=6", "dropout=0.1")), result("umtl", 1))
    told = "Other settings than the paper's: class_batch 10 or 6 (10), dropout 0.1 or 0.25 (0.25)."
    assert told in text


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
    assert "0.658, above every row" in line(text, "the paper's cross-domain films")
    accuracies = [
        figures["accuracy"]
        for (*_, domain), figures in paper_figures().items()
        if domain == "cross-domain" and "accuracy" in figures
    ]
    assert max(accuracies) < 0.658
    assert line(text, "Data learnt from").endswith(": 4,000 CheX train.")
    assert line(text, "Films scored in-domain").endswith(": 531 CheX val.")
    assert line(text, "Films scored cross-domain").endswith(": 690 NIH test.")
    assert "No more than" not in text
    assert "an average in the paper" in line(text, "Hausdorff is")
    assert "with its dropout" in line(text, "Unlabelled batches")
    assert "contradict the supplement's figure 6" in text


def test_a_table_of_a_part_of_the_films_says_so():
    text = "\n".join(markdown(Grid((result("unet", 1),), "a", SCORED, most_films=200)))
    assert "No more than 200 films of each set are scored" in text


def test_what_a_budget_does_not_count_and_what_is_done_to_answers_is_said():
    text = page(replace(result("enc", 1), held_out_labels=40), result("enc", 2))
    assert "fitted on all 40 labels of the patients held out" in line(text, "Platt scaling")
    assert "specks" not in text
    text = page(replace(result("unet", 1), held_out_labels=40))
    assert "also with the preset `paper`" in line(text, "specks are removed")
    assert "at 256 x 256" in line(text, "specks are removed")
    assert "Platt" not in text


def test_the_csv_holds_every_figure_once(tmp_path):
    grid = Grid((result("multimix", 1), result("multimix", 2)), "a", SCORED)
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
    figure_6 = found["multimix", "100", "10", "in-domain", "auroc_figure_6"]
    assert (figure_6["mean"], figure_6["seeds"], figure_6["paper"]) == ("", "0", "0.806")
    assert "# The paper's table" in (tmp_path / "table.md").read_text()
