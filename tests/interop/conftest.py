"""Servers that the interoperability tests share with the worker's."""

from tests.worker.conftest import no_settings_from_outside, postgres_cluster, postgres_url

__all__ = ["no_settings_from_outside", "postgres_cluster", "postgres_url"]
