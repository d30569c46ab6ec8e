"""Where preprocessed exports are kept, by preprocessing version.

::

    CACHE/VERSION/images.rows, images.jsonl    network inputs by content (``model.row_store``)
    CACHE/VERSION/masks.rows, masks.jsonl      lung masks by content
    CACHE/VERSION/files-HASH.jsonl             the files of one export (``model.file_journal``)
    CACHE/VERSION/lock                         held by the process that reads exports

All of it is its owner's alone: it holds films, and the Patient IDs by which splits are made.
"""

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console

from dicom_io.errors import TrainingError
from dicom_io.pixels import PREPROCESSING_VERSION
from model.file_journal import FileJournal
from model.image_table import TABLE_SIDE
from model.private_file import PRIVATE_FOLDER, private
from model.row_store import RowStore

CACHE_LAYOUT: Final = "4"
_ROW_SHAPE: Final = (TABLE_SIDE, TABLE_SIDE)


@dataclass(frozen=True)
class ExportCache:
    """An open cache; this process alone has it.

    Attributes:
        folder: of the preprocessing version.
        images: network inputs, by the content of the image's file.
        masks: lung masks, by the contents of the image's and the masks' files.
    """

    folder: Path
    images: RowStore
    masks: RowStore

    def journal(self, export: Path) -> FileJournal:
        """What is known of the files of one export."""
        name = hashlib.sha256(os.fsencode(export.resolve())).hexdigest()[:32]
        return FileJournal(self.folder / f"files-{name}.jsonl")

    def sync(self) -> None:
        """Return when everything kept so far would be found again."""
        self.images.sync()
        self.masks.sync()


def default_cache_folder() -> Path:
    """Where preprocessed exports are kept unless told otherwise."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(home) / "multimix"


@contextmanager
def open_cache(cache_folder: Path, console: Console) -> Iterator[ExportCache]:
    """Open the cache of this preprocessing version, when no other process reads exports into it.

    Args:
        cache_folder: of all versions.
        console: told when there is a wait for another process.

    Raises:
        TrainingError: the folder cannot be written.
    """
    folder = cache_folder / f"{PREPROCESSING_VERSION}-{CACHE_LAYOUT}"
    try:
        cache_folder.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=PRIVATE_FOLDER, exist_ok=True)
        if folder.stat().st_uid == os.geteuid():  # it may be of a version that left it open to all
            folder.chmod(PRIVATE_FOLDER)
        with (
            _alone_in(folder, console),
            closing(RowStore(folder, "images", _ROW_SHAPE)) as images,
            closing(RowStore(folder, "masks", _ROW_SHAPE)) as masks,
        ):
            yield ExportCache(folder, images, masks)
    except OSError as cause:
        raise TrainingError(
            f"the cache {folder} cannot be used: {cause.strerror or type(cause).__name__}; "
            "--cache takes another folder"
        ) from cause


@contextmanager
def _alone_in(folder: Path, console: Console) -> Iterator[None]:
    # A POSIX lock, unlike that of flock, is not inherited by the reading processes, so that it ends
    # with this one however it ends.
    with open(folder / "lock", "w", opener=private) as lock:
        try:
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print(
                f"waiting for another process that reads exports into {folder}",
                markup=False,
                soft_wrap=True,
            )
            fcntl.lockf(lock, fcntl.LOCK_EX)
        yield
