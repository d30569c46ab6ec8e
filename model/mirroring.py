"""A network's answers averaged over each film and its mirror image.

Which side the heart is on means nothing to the network, which has learnt from films and mirrored
films alike, but it does not answer both to the same digit. The mean of both answers is the better
one (``docs/experiments.md``), for a second pass. The mirrored answer is mirrored back before, so
that masks and saliency lie where the film has what they show.
"""

import torch
from torch import Tensor, nn

from model.network import MultiMixNetwork, NetworkOutput


class MirrorAveraged(nn.Module):
    """Answers as the network that it holds does, twice over."""

    def __init__(self, network: MultiMixNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, images: Tensor, *, masks: bool = True, saliency: bool = False
    ) -> NetworkOutput:
        """Read a batch of films; see ``MultiMixNetwork.forward``.

        Logits, mask logits and saliency are means of both answers; features are the film's own.
        """
        count = len(images)
        both = self.network(torch.cat([images, mirrored(images)]), masks=masks, saliency=saliency)
        return NetworkOutput(
            logits=(both.logits[:count] + both.logits[count:]) / 2,
            mask_logits=_mean_of_maps(both.mask_logits, count),
            saliency=_mean_of_maps(both.saliency, count),
            features=both.features[:count],
        )


def mirrored(images: Tensor) -> Tensor:
    """(batch, 1, height, width) with left and right exchanged."""
    return images.flip(3)


def _mean_of_maps(maps: Tensor | None, count: int) -> Tensor | None:
    """Mean of the first ``count`` maps and the others, which are mirrored."""
    return None if maps is None else (maps[:count] + mirrored(maps[count:])) / 2
