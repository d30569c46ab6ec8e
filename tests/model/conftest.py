from collections.abc import Iterator

import pytest
import torch

from model.image_table import ImageTable
from tests.model.films import film_table


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors are slower on many threads, and a sum's last bit may depend on their number."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def table() -> ImageTable:
    """16 drawn films with masks, labels and patients, for a short run."""
    return film_table(16)
