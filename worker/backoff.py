"""Pauses between attempts: doubling, with a limit, and spread at random; and when they end."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from random import random
from typing import Protocol

_MOST_DOUBLINGS = 30


@dataclass(frozen=True)
class Backoff:
    """How long to wait after the n-th failure in a row.

    Attributes:
        first_seconds: nominal pause after the first failure.
        longest_seconds: nominal pause after many.
    """

    first_seconds: float
    longest_seconds: float

    def pause(self, failures: int, draw: Callable[[], float] = random) -> timedelta:
        """The pause after so many failures in a row.

        Args:
            failures: at least 1.
            draw: gives a number in [0, 1); spreads those that failed together.

        Returns:
            Between half of the nominal pause and all of it.
        """
        doublings = min(max(failures - 1, 0), _MOST_DOUBLINGS)
        nominal = min(self.first_seconds * 2**doublings, self.longest_seconds)
        return timedelta(seconds=nominal * (0.5 + 0.5 * draw()))


class Patience(Protocol):
    """How an object that was not taken is tried again."""

    @property
    def backoff(self) -> Backoff:
        """Pauses before it is sent again."""

    @property
    def give_up_after(self) -> timedelta:
        """It is set aside after so long."""
