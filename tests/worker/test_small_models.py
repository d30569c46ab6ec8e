"""A model that learnt at less than the table's size is served what it has learnt from."""

from pathlib import Path

from dicom_io.phantom import draw_phantom, phantom_dataset
from dicom_io.pixels import decode
from model import SHIPPED_MODEL
from model.checkpoint import read_model
from model.dataset import load_exports
from model.predictor import Predictor
from worker.reading import find

SIDE = 128


def test_the_node_answers_a_film_as_evaluation_does(tmp_path: Path) -> None:
    film = phantom_dataset(draw_phantom(1, 384, 320))
    (tmp_path / "export").mkdir()
    film.save_as(tmp_path / "export" / "film.dcm", enforce_file_format=True)
    table = load_exports([tmp_path / "export"], tmp_path / "cache", jobs=1)
    network, card = read_model(SHIPPED_MODEL)
    small = Predictor(network, card.model_copy(update={"input_side": SIDE, "gate": None}))
    (evaluated,) = small.predict_batch(table.images_at([0], SIDE))
    assert find(decode(film), film, small).probability == evaluated.probability
