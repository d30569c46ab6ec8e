"""Training on several processes, of one machine or more, started by ``torchrun``.

Every process draws the whole batch of a step, which is a pure function of seed and step, lets its
network see its own part of it, and is told what the others' networks made of theirs. So every
process computes the loss of the whole batch, whatever its terms divide by; only the gradient is its
own part's, and the sum of all of them is the gradient of one process that sees everything.

This is exact because the network never mixes the images of a batch. PyTorch's
DistributedDataParallel averages losses over the parts instead, which is another loss as soon as a
term divides by what it finds in the batch, as those of pseudo-labels, unlabelled classes and mask
priors do.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Final, Protocol, TypeVar

import torch

# Its functions take the process group that they find when they are imported for a default. The
# first step of an optimizer imports them; a group met before then would outlive its end, and a
# thread of it that still frees a tensor while Python ends aborts a process that has done its work.
import torch.distributed.nn.functional
from torch import Tensor, distributed, nn

from dicom_io.errors import TrainingError
from model.config import TrainingConfig
from model.network import NetworkOutput

Found = TypeVar("Found")

# The others wait while the first reads an archive or validates, for hours where it is large; the
# defaults of 10 and 30 minutes would end them. A process that dies is noticed by torchrun.
LONGEST_WAIT: Final = timedelta(days=1)


class ReadsFilms(Protocol):
    """What a network is to a loss: images in, logits and masks out."""

    def __call__(self, images: Tensor, *, masks: bool = True) -> NetworkOutput:
        """Read a batch of films; see ``MultiMixNetwork.forward``."""


@dataclass(frozen=True)
class Ranks:
    """This process among those that train together.

    Attributes:
        rank: its number, from 0.
        count: how many there are.
        local_rank: its number on its machine.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the one that validates, writes and speaks."""
        return self.rank == 0

    def part_of(self, batch: int) -> slice:
        """This process's part of a batch; the first ones get one more where it does not divide."""
        return slice(batch * self.rank // self.count, batch * (self.rank + 1) // self.count)


ALONE = Ranks()


@contextmanager
def joined_ranks(device: str) -> Iterator[Ranks]:
    """Meet the processes that ``torchrun`` started beside this one; alone without it.

    Args:
        device: ``cpu`` or ``cuda``.

    Raises:
        TrainingError: ``torchrun``'s variables are incomplete, or there is no CUDA device for this
            process alone.
    """
    if "WORLD_SIZE" not in os.environ or int(os.environ["WORLD_SIZE"]) == 1:
        yield ALONE
        return
    try:
        rank, count, local = (int(os.environ[n]) for n in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except (KeyError, ValueError) as cause:
        raise TrainingError("start several processes by torchrun, which numbers them") from cause
    if device != "cpu":
        _take_cuda_device(device, local)
    distributed.init_process_group("nccl" if device == "cuda" else "gloo", timeout=LONGEST_WAIT)
    try:
        yield Ranks(rank, count, local)
    finally:
        distributed.destroy_process_group()


def _take_cuda_device(device: str, local_rank: int) -> None:
    """Give this process the device of its number; NCCL lets no two processes share one."""
    if device != "cuda":
        raise TrainingError(
            f"{device} is one device, and torchrun started several processes, each of which needs "
            "its own; choose cuda"
        )
    found = torch.cuda.device_count()
    if local_rank >= found:
        raise TrainingError(
            f"process {local_rank} of this machine has no CUDA device of its own: there are "
            f"{found}; lower --nproc-per-node to that, or choose --device cpu"
        )
    torch.cuda.set_device(local_rank)


def require_divisible(config: TrainingConfig, ranks: Ranks) -> None:
    """Refuse batches in which a process would have nothing to do.

    Raises:
        TrainingError: a batch has fewer images than there are processes.
    """
    batches = {
        "class_batch": (config.class_batch, config.tasks.classify),
        "mask_batch": (config.mask_batch, config.tasks.segment),
        "unlabelled_batch": (
            config.unlabelled_batch,
            config.tasks.pseudo_labels or config.tasks.unlabelled_masks,
        ),
    }
    for name, (batch, is_drawn) in batches.items():
        if is_drawn and batch < ranks.count:
            raise TrainingError(
                f"{name} is {batch}, too few for {ranks.count} processes; raise it, or start fewer"
            )


def split_over(network: nn.Module, ranks: Ranks) -> ReadsFilms:
    """A network of which every process runs its part of the batch and gets the whole answer.

    Gradients flow into this process's part alone.
    """
    if ranks.count == 1:
        whole: ReadsFilms = network
        return whole

    def read(images: Tensor, *, masks: bool = True) -> NetworkOutput:
        """Features are of this process's part alone: no loss reads them."""
        own = ranks.part_of(len(images))
        found: NetworkOutput = network(images[own], masks=masks)
        return NetworkOutput(
            logits=_whole(found.logits, len(images), ranks),
            mask_logits=(
                None if found.mask_logits is None else _whole(found.mask_logits, len(images), ranks)
            ),
            saliency=None,
            features=found.features,
        )

    return read


def _whole(own: Tensor, batch: int, ranks: Ranks) -> Tensor:
    """Everybody's parts in order, this process's as it is, with its gradient."""
    parts = [Ranks(rank, ranks.count).part_of(batch) for rank in range(ranks.count)]
    largest = max(part.stop - part.start for part in parts)
    own = own.float()
    # Equal shapes of single precision are what every backend gathers.
    sent = own.new_zeros(largest, *own.shape[1:])
    sent[: len(own)] = own.detach()
    received = [torch.empty_like(sent) for _ in parts]
    distributed.all_gather(received, sent)
    gathered = [
        found[: part.stop - part.start] for found, part in zip(received, parts, strict=True)
    ]
    gathered[ranks.rank] = own
    return torch.cat(gathered)


def sum_gradients(parameters: Sequence[nn.Parameter], ranks: Ranks) -> None:
    """Replace every process's gradients by their sum, in one exchange.

    A parameter that no loss reaches has no gradient in any process. It stays without one: of a
    gradient of zero the optimizer would make a decay of weights.
    """
    if ranks.count == 1:
        return
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    together = torch.cat([gradient.reshape(-1) for gradient in gradients])
    distributed.all_reduce(together)
    position = 0
    for gradient in gradients:
        part = together[position : position + gradient.numel()]
        gradient.copy_(part.view(gradient.shape))
        position += gradient.numel()


def largest_of(number: float, ranks: Ranks, device: torch.device) -> float:
    """The largest of the processes' numbers."""
    if ranks.count == 1:
        return number
    shared = torch.tensor(number, dtype=torch.float64, device=device)
    distributed.all_reduce(shared, distributed.ReduceOp.MAX)
    return float(shared)


def require_same_data(content_sha256: str, ranks: Ranks, device: torch.device) -> None:
    """Refuse processes that would learn from different images.

    Args:
        content_sha256: hash of what this process learns from, hexadecimal.
        ranks: the processes.
        device: where they exchange numbers.

    Raises:
        TrainingError: another process has another hash; every process raises it.
    """
    number = int(content_sha256[:12], 16)  # 48 bits pass through a float unchanged
    highest, lowest = (sign * largest_of(sign * number, ranks, device) for sign in (1, -1))
    if highest != lowest:
        raise TrainingError(
            "the processes see different training data; give every machine the same exports"
        )


def after_the_first(do: Callable[[], Found], ranks: Ranks) -> Found:
    """Do something on each machine's first process, then on its others: they find it done."""
    if ranks.count == 1:
        return do()
    if ranks.local_rank:
        distributed.barrier()
        return do()
    try:
        return do()
    finally:
        distributed.barrier()
