"""Which kinds of result a target gets, as written in settings, and what stands in for which."""

from collections.abc import Collection
from typing import Final

from dicom_io.errors import SettingsError
from dicom_io.uids import ResultKind

DEFAULT_PROFILE: Final = frozenset({ResultKind.SEGMENTATION, ResultKind.SECONDARY_CAPTURE})
# What is sent in place of a kind that a target does not accept, and in place of that, and so on.
SUBSTITUTES: Final = {
    ResultKind.LABEL_MAP_SEGMENTATION: ResultKind.SEGMENTATION,
    ResultKind.SEGMENTATION: ResultKind.PRESENTATION_STATE,
    ResultKind.PRESENTATION_STATE: ResultKind.SECONDARY_CAPTURE,
    ResultKind.REPORT: ResultKind.SECONDARY_CAPTURE,
}
PROFILE_NAMES: Final = {
    "seg": ResultKind.SEGMENTATION,
    "labelmap": ResultKind.LABEL_MAP_SEGMENTATION,
    "sc": ResultKind.SECONDARY_CAPTURE,
    "gsps": ResultKind.PRESENTATION_STATE,
    "sr": ResultKind.REPORT,
}


def profile(names: Collection[str]) -> frozenset[ResultKind]:
    """The kinds of object that a target is to get, by the names used in settings.

    Args:
        names: any of ``seg``, ``labelmap``, ``sc``, ``gsps``, ``sr``.

    Raises:
        SettingsError: no name, or an unknown one.
    """
    unknown = sorted(set(names) - PROFILE_NAMES.keys())
    if unknown or not names:
        raise SettingsError(
            f"a result profile is one or more of {', '.join(PROFILE_NAMES)}; "
            f"got {', '.join(unknown) or 'nothing'}"
        )
    return frozenset(PROFILE_NAMES[name] for name in names)


def profile_text(kinds: Collection[ResultKind]) -> str:
    """A profile as it is written in settings, e.g. ``seg+sc``."""
    return "+".join(name for name, kind in PROFILE_NAMES.items() if kind in kinds)


def substitutes_of(kind: ResultKind) -> tuple[ResultKind, ...]:
    """What stands in for a kind that a target does not accept, the best first."""
    substitute = SUBSTITUTES.get(kind)
    return () if substitute is None else (substitute, *substitutes_of(substitute))


def with_substitutes(kinds: Collection[ResultKind]) -> frozenset[ResultKind]:
    """Kinds of object, and all that may have to be sent in place of one of them."""
    return frozenset(kinds).union(*(substitutes_of(kind) for kind in kinds))
