"""The models that this node has used, as rows of the database."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from dicom_io.errors import CheckpointError
from dicom_io.findings import ModelIdentity
from worker.database import insert_if_absent
from worker.tables import Model


def register_model(session: Session, identity: ModelIdentity, now: datetime) -> int:
    """Enter a model, or find it where it was entered before.

    Returns:
        Its key.

    Raises:
        CheckpointError: the version was used for other weights; results of both would have the
            same UIDs.
    """
    insert_if_absent(
        session,
        Model,
        name=identity.name,
        version=identity.version,
        sha256=identity.sha256,
        first_used_at=now,
    )
    row = session.scalars(select(Model).where(Model.version == identity.version)).one()
    if (row.name, row.sha256) != (identity.name, identity.sha256):
        raise CheckpointError(
            f"model version {identity.version} was used on this node with other weights "
            f"({row.sha256[:16]}, now {identity.sha256[:16]}); give the new model a new version"
        )
    return row.model_key
