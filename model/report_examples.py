"""Which films a run's report shows, and what stands above them."""

from collections.abc import Sequence
from textwrap import shorten

from model.image_scores import Scored
from model.image_table import ImageTable
from model.predictor import Predictor
from model.report_pictures import MaskPicture, SaliencyPicture

SALIENCY_OF_EACH_KIND = 2
TITLE_WIDTH = 30


def saliency_examples(
    exports: ImageTable, labelled: Sequence[Scored], threshold: float, predictor: Predictor
) -> list[SaliencyPicture]:
    """The most certain right and wrong verdicts of each class."""
    pictures = []
    for is_ill, claims_ill in ((True, True), (True, False), (False, True), (False, False)):
        kind = [
            s
            for s in labelled
            if (s.record.class_index == 1) == is_ill and (s.probability >= threshold) == claims_ill
        ]
        kind.sort(key=lambda s: s.probability, reverse=claims_ill)
        for one in kind[:SALIENCY_OF_EACH_KIND]:
            image_hw = exports.images_at([one.row], predictor.card.input_side)[0]
            label, verdict = (("normal", "pneumonia")[flag] for flag in (is_ill, claims_ill))
            title = f"label {label}\nverdict {verdict}, {one.probability:.2f}"
            saliency_hw = predictor.predict(image_hw).saliency_hw
            shape = one.record.rows / one.record.columns
            pictures.append(SaliencyPicture(title, image_hw, saliency_hw, shape))
    return pictures


def mask_pictures(
    exports: ImageTable, chosen: Sequence[Scored], predictor: Predictor
) -> list[MaskPicture]:
    """Films with both masks, named by figures and never by patient."""
    pictures = []
    for one in chosen:
        if one.mask is None:
            raise AssertionError("only films with a reference mask are shown")
        image_hw = exports.images_at([one.row], predictor.card.input_side)[0]
        distance = "" if one.mask.hd95_px is None else f", HD95 {one.mask.hd95_px:.0f} px"
        pictures.append(
            MaskPicture(
                title=f"Dice {one.mask.dice:.3f}{distance}\n"
                + shorten(one.record.source, TITLE_WIDTH, placeholder=" …"),
                image_hw=image_hw,
                predicted_hw=predictor.predict(image_hw).lung_probability_hw >= 0.5,
                reference_hw=exports.masks_at([one.row], predictor.card.input_side)[0] > 0,
                height_by_width=one.record.rows / one.record.columns,
            )
        )
    return pictures
