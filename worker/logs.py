"""Logging of every process: one line an event on standard error, for people or for programs."""

import logging
import sys
import warnings

import structlog

from worker.settings import Settings


def configure_logging(settings: Settings, part: str) -> None:
    """Send all logging of this process to standard error.

    Args:
        settings: format and level.
        part: which part of the node this process is; stands in every line.
    """
    renderer: structlog.typing.Processor
    if settings.log_format == "json":
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())

    def name_part(
        _: object, __: str, event: structlog.typing.EventDict
    ) -> structlog.typing.EventDict:
        return {**event, "part": part}

    formatter = structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            name_part,
        ],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    silence_what_may_quote_patients()


def silence_what_may_quote_patients() -> None:
    """Keep libraries from telling what stands in a dataset.

    pydicom warns of a malformed value by quoting it, and pynetdicom describes what it received;
    either may be a patient's name. What matters of it is said by our own modules, without values.
    """
    warnings.simplefilter("ignore")
    for name in ("pydicom", "pynetdicom", "highdicom"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in ("kombu", "alembic", "celery.worker.strategy", "celery.app.trace", "PIL"):
        logging.getLogger(name).setLevel(logging.WARNING)
