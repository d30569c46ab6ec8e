import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from typer import Typer
from typer.testing import CliRunner

from dicom_io.errors import TrainingError
from model.checkpoint import read_model
from model.dataset import load_exports
from model.evaluate import evaluate_rows
from model.image_table import ImageTable
from model.metrics import CALIBRATION_BINS, auroc, expected_calibration_error
from model.network import MultiMixNetwork, NetworkShape
from model.predictor import Predictor
from model.presets import configure
from model.report import (
    MEDIAN_MASKS,
    WORST_MASKS,
    main,
    rows_to_report,
    shortcut_warning,
    write_report,
)
from model.report_charts import (
    confusion_matrix,
    reliability_chart,
    roc_curve,
    training_curves,
)
from model.report_page import Image, page, section, table
from model.report_pictures import MaskPicture, SaliencyPicture, mask_sheet, saliency_sheet
from model.run_folder import (
    append_row,
    first_card,
    keep_model,
    read_config,
    read_metrics,
    write_config,
)
from model.split_file import write_splits
from model.splits import divide
from model.streams import make_streams
from tests.model.exports import write_export
from tests.model.films import draw_film, film_table

# One process makes the run that most of them look at.
pytestmark = pytest.mark.xdist_group("report")


def finished_run(out, films, *, model=None):
    """A run's folder as training leaves it, with a network that has not learnt anything."""
    config = configure("best", model=model, overrides=("validation_share=0.45",))
    torch.manual_seed(0)
    network = MultiMixNetwork(NetworkShape(channels=(2, 2, 2, 2, 2)))
    pools = divide(films.records, labels=None, masks=None, validation_share=0.45, seed=0)
    rows = make_streams(films.records, pools, config).rows
    write_config(out, config)
    for step in (2, 4):
        append_row(out / "metrics.csv", {"step": step, "mean_ce": 1 / step, "auroc": 0.5})
    keep_model(out, network, films, pools, first_card("1", films, rows, config), {}, 256)
    return out, pools


class Page(HTMLParser):
    """What a browser would need to fetch, and whether every element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.sources, self.headings = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture(scope="module")
def films():
    return film_table(24)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, films):
    """A run, its films, and its page."""
    out, _ = finished_run(tmp_path_factory.mktemp("run"), films)
    return films, out, write_report(out, films, full_size=False).read_text()


def test_the_page_needs_no_other_file_and_closes_every_element(finished):
    found = Page(finished[2])
    assert not found.open
    assert found.sources
    assert all(source.startswith("data:image/") for source in found.sources)
    for kind, start in (("png", b"\x89PNG"), ("svg+xml", b"<?xml")):
        contents = [s.split(",")[1] for s in found.sources if s.startswith(f"data:image/{kind};")]
        assert contents
        assert all(base64.b64decode(content).startswith(start) for content in contents)


def test_the_page_has_a_section_for_everything_that_was_learnt(finished):
    assert Page(finished[2]).headings == [
        *("Training", "Pneumonia", "Shortcuts", "Saliency"),
        *("Lung masks", "The worst masks", "Median masks"),
    ]
    assert "patients held out from training" in finished[2]


def test_the_page_says_where_its_films_had_a_say_in_the_model(finished):
    films, out, text = finished
    chose = "chose the checkpoint, the calibration and the operating point"
    by_heart = "may have learnt films of the train split by heart"
    assert chose in text
    assert by_heart not in text
    text = write_report(out, films, split="train", full_size=False).read_text()
    assert by_heart in text
    assert chose not in text
    tested = tuple(replace(record, split="test") for record in films.records)
    tested_films = replace(films, records=tested)
    text = write_report(out, tested_films, split="test", full_size=False).read_text()
    assert by_heart not in text
    assert chose not in text


def test_the_page_names_no_patient(finished):
    films, _, text = finished
    assert not [r.patient for r in films.records if r.patient in text]


def test_the_page_tells_the_figures_of_the_patients_held_out(finished):
    films, out, text = finished
    pools = divide(films.records, labels=None, masks=None, validation_share=0.45, seed=0)
    assert f"{len(pools.validation)} films, patients held out" in text
    figures, _ = evaluate_rows(
        films, pools.validation, Predictor.load(out / "model"), full_size=False
    )
    for name in ("dice", "auroc", "ece"):
        assert f"<td>{figures[name]:.3f}</td>" in text


def test_who_was_held_out_cannot_be_told_from_other_exports(finished):
    _, out, _ = finished
    with pytest.raises(TrainingError, match="not the exports"):
        write_report(out, film_table(12))


def test_a_run_whose_films_had_another_order_and_division_is_reported_on_as_it_was(tmp_path, films):
    out, _ = finished_run(tmp_path, films)
    pools = divide(films.records, labels=None, masks=None, validation_share=0.45, seed=7)
    config = read_config(out)
    rows = make_streams(films.records, pools, config).rows
    card = first_card("1", films, rows, config)
    keep_model(out, read_model(out / "model")[0], films, pools, card, {}, 256)
    write_splits(out, films.records, pools)
    order = np.arange(len(films.records))[::-1]
    reordered = ImageTable(
        tuple(films.records[row] for row in order), films.images[order], films.masks[order], ()
    )
    text = write_report(out, reordered, full_size=False).read_text()
    assert f"{len(pools.validation)} films, patients held out" in text
    reordered.images[-1 - rows[0]] ^= 1
    with pytest.raises(TrainingError, match="not the exports"):
        write_report(out, reordered, full_size=False)


def test_a_split_that_does_not_exist_is_refused(finished):
    films, out, _ = finished
    with pytest.raises(TrainingError, match="no image of split 'test'"):
        rows_to_report(out, films, "", "test")


@pytest.mark.parametrize(("model", "missing"), [("unet", "Pneumonia"), ("enc", "Lung masks")])
def test_a_task_that_was_not_learnt_has_no_section(tmp_path, films, model, missing):
    out, _ = finished_run(tmp_path, films, model=model)
    headings = Page(write_report(out, films, full_size=False).read_text()).headings
    assert missing not in headings
    assert len(headings) > 1


def test_films_of_one_class_and_without_masks_end_in_sentences(tmp_path, films):
    out, _ = finished_run(tmp_path, films)
    plain = film_table(6, split="test", label="normal", has_mask=False)
    text = write_report(out, plain, split="test", full_size=False).read_text()
    assert "one is missing" in text
    assert "No film of these has a reference mask" in text


def test_the_command_writes_the_page_and_fails_with_a_sentence_without_a_run(tmp_path):
    export = write_export(tmp_path, 8)
    films = load_exports([export], tmp_path / "cache", jobs=1)
    out, _ = finished_run(tmp_path / "run", films)
    application = Typer()
    application.command()(main)
    common = ["--data", str(export), "--cache", str(tmp_path / "cache")]
    done = CliRunner().invoke(application, [str(out), *common, "--split", "test"])
    assert done.exit_code == 0, done.output
    assert "split test" in (out / "report.html").read_text()
    failed = CliRunner().invoke(application, [str(tmp_path / "none"), *common])
    assert failed.exit_code == 1
    assert "cannot be read" in failed.output


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_area_under_the_drawn_curve_is_the_auroc(levels):
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 80)
    scores = np.round((labels * 0.3 + random.random(80)) * levels)
    false_rate, true_rate = roc_curve(scores, labels)
    assert np.trapezoid(true_rate, false_rate) == pytest.approx(auroc(scores, labels))
    assert (false_rate[0], true_rate[0], false_rate[-1], true_rate[-1]) == (0, 0, 1, 1)


def test_terms_of_every_size_are_told_apart_in_the_curves():
    rows = [
        {"step": step, "mean_dice": 2.0 / step, "mean_pseudo": 0.0, "mean_unlabelled_mask": small}
        for step, small in ((1, 4e-3), (2, 1e-3))
    ]
    figure = training_curves(rows)
    figure.canvas.draw()
    axes = figure.axes[0]
    heights = {
        line.get_label(): axes.transData.transform(line.get_xydata())[:, 1] - axes.bbox.y0
        for line in axes.lines
    }
    assert set(heights) == {"dice", "pseudo", "unlabelled mask"}
    assert heights["pseudo"] == pytest.approx([0, 0], abs=1)
    assert heights["unlabelled mask"].min() > 0.1 * axes.bbox.height
    assert heights["unlabelled mask"][0] - heights["unlabelled mask"][1] > 10
    assert heights["dice"].min() > heights["unlabelled mask"].max()


def test_no_number_of_films_stands_below_the_reliability_diagram():
    probabilities = np.linspace(0.01, 0.99, 60)
    labels = (probabilities > 8 / CALIBRATION_BINS).astype(int)
    axes = reliability_chart(probabilities, labels, 0.1).axes[0]
    counts = [text for text in axes.texts if text.get_text().isdecimal()]
    assert sum(int(text.get_text()) for text in counts) == 60
    assert all(text.get_position()[1] > 0 for text in counts if text.xy[1] == 0)
    assert {text.xy[1] for text in counts} == {0.0, 1.0}


def test_the_reliability_diagram_shows_the_gaps_that_the_ece_in_its_title_adds_up():
    random = np.random.default_rng(0)
    probabilities = random.random(200)
    labels = (random.random(200) < probabilities**2).astype(int)
    ece = expected_calibration_error(probabilities, labels)
    axes = reliability_chart(probabilities, labels, ece).axes[0]
    claimed, observed = next(
        line for line in axes.lines if line.get_label() == "observed"
    ).get_data()
    shares = np.array([bar.get_height() for bar in axes.patches])
    assert np.sum(shares * np.abs(np.array(claimed) - np.array(observed))) == pytest.approx(ece)


@pytest.mark.parametrize(
    ("model", "trivial", "words"),
    [
        (0.9, 0.55, None),
        (0.9, None, None),
        (0.9, 0.7, "judge it within each view"),
        (0.7, 0.8, "nothing shows"),
        (0.55, 0.58, "nothing shows"),
        (0.5, 0.5, "nothing shows"),
    ],
)
def test_a_model_that_does_not_beat_trivial_features_is_warned_of(model, trivial, words):
    found = shortcut_warning({"auroc": model, "shortcut_auroc": trivial})
    assert len(found) == (words is not None)
    assert words is None or words in found[0]


def test_too_few_labels_for_a_feature_alone_end_in_a_sentence(tmp_path, films):
    out, _ = finished_run(tmp_path, films)
    few = film_table(8, split="test")
    text = write_report(out, few, split="test", full_size=False).read_text()
    assert "Too few labels" in text
    assert "<th>alone</th>" not in text


def test_the_confusion_matrix_has_labels_in_rows():
    verdicts, labels = np.array([True, True, False, True]), np.array([0, 1, 1, 1])
    assert confusion_matrix(verdicts, labels).tolist() == [[0, 1], [1, 2]]


def test_every_picture_has_a_place_and_a_film_without_lungs_is_drawn_too():
    film = draw_film(0, pneumonia=False)
    lungs, none = film.mask_hw > 0, np.zeros((256, 256), bool)
    for count in (1, MEDIAN_MASKS, WORST_MASKS):
        pictures = [MaskPicture("t", film.image_hw, none, lungs, 1.2)] * count
        assert sum(bool(axes.images) for axes in mask_sheet(pictures).axes) == count


def test_a_source_that_looks_like_a_formula_is_drawn_as_text():
    film = draw_film(0, pneumonia=False)
    title = r"Clinic $\frac{$"
    sheets = (
        mask_sheet([MaskPicture(title, film.image_hw, film.mask_hw > 0, film.mask_hw > 0, 1.0)]),
        saliency_sheet([SaliencyPicture(title, film.image_hw, np.ones((256, 256), "f4"), 1.0)]),
    )
    for sheet in sheets:
        assert "data:image/png" in Image(sheet, "films", "png").html()
        assert sheet.axes[0].get_title() == title


def test_what_an_export_says_is_text_and_never_markup():
    text = page("<script>", "a & b", [section("<b>", table(["<i>"], {"<u>": [0.5, None]}))])
    assert not {"<script>", "<b>", "<i>", "<u>"} & set(re.findall(r"<\w+>", text))
    assert "0.500" in text


def test_metrics_are_read_back_as_numbers_with_gaps(tmp_path):
    append_row(tmp_path / "metrics.csv", {"step": 1, "dice": 0.5})
    append_row(tmp_path / "metrics.csv", {"step": 2, "auroc": 0.75})
    assert read_metrics(tmp_path) == [{"step": 1, "dice": 0.5}, {"step": 2, "auroc": 0.75}]
    (tmp_path / "metrics.csv").write_text("step\nmany\n")
    with pytest.raises(TrainingError, match="damaged"):
        read_metrics(tmp_path)
