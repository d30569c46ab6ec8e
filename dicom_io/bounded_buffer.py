"""What is received is held in memory within two limits: one of an object, one of all together."""

import threading
import weakref
from collections import deque
from io import BytesIO


class SharedBytes:
    """A number of bytes that many buffers may hold together.

    Args:
        limit: that number; None for no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._held = 0
        self._lock = threading.Lock()
        # The garbage collector gives back in the middle of anything, also of what holds the lock.
        self._given_back: deque[int] = deque()

    @property
    def held(self) -> int:
        """How many bytes are held now."""
        with self._lock:
            self._settle()
            return self._held

    def take(self, count: int) -> bool:
        """Hold so many bytes more; False, and nothing more is held, where they do not fit."""
        with self._lock:
            self._settle()
            if self._limit is not None and self._held + count > self._limit:
                return False
            self._held += count
            return True

    def give_back(self, count: int) -> None:
        """Hold so many bytes less; never waits."""
        self._given_back.append(count)

    def _settle(self) -> None:
        while self._given_back:
            self._held -= self._given_back.popleft()


class BoundedBuffer(BytesIO):
    """A buffer that takes what fits and remembers that there was more.

    What does not fit costs the peer this object and nothing else: the rest of it is read and let
    go, and the association goes on.

    Args:
        limit: bytes that it may hold; on the first byte beyond, all that it holds is dropped.
        shared: bytes that it may hold together with others; likewise. They are given back when
            nobody refers to the buffer any more.
    """

    def __init__(self, limit: int, shared: SharedBytes | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._share = _Share(shared or SharedBytes())
        weakref.finalize(self, self._share.give_back)
        self.is_too_long = False
        self.found_no_room = False

    @property
    def overflowed(self) -> bool:
        """Whether there was more than fits."""
        return self.is_too_long or self.found_no_room

    def write(self, content: bytes) -> int:  # type: ignore[override]
        """Append, or drop everything once a limit is passed; always claims success."""
        if self.overflowed:
            return len(content)
        self.is_too_long = self.tell() + len(content) > self._limit
        self.found_no_room = not self.is_too_long and not self._share.grow(len(content))
        if self.overflowed:
            self.seek(0)
            self.truncate()
            self._share.give_back()
        else:
            super().write(content)
        return len(content)


class _Share:
    """What one buffer holds of the bytes of all."""

    def __init__(self, shared: SharedBytes) -> None:
        self._shared = shared
        self._held = 0

    def grow(self, count: int) -> bool:
        fits = self._shared.take(count)
        self._held += count if fits else 0
        return fits

    def give_back(self) -> None:
        self._shared.give_back(self._held)
        self._held = 0
