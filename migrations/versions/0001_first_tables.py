"""first tables.

Revision 0001, the first; 2026-11-23
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "associations",
        sa.Column("association_key", sa.Integer(), nullable=False),
        sa.Column("association_uid", sa.String(length=64), nullable=False),
        sa.Column("listener", sa.String(length=255), nullable=False),
        sa.Column("calling_ae_title", sa.String(length=16), nullable=False),
        sa.Column("called_ae_title", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=64), nullable=False),
        sa.Column("accepted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("released", sa.Boolean(), nullable=True),
        sa.PrimaryKeyConstraint("association_key", name=op.f("pk_associations")),
        sa.UniqueConstraint("association_uid", name=op.f("uq_associations_association_uid")),
    )
    with op.batch_alter_table("associations", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_associations_listener_ended_at"), ["listener", "ended_at"], unique=False
        )

    op.create_table(
        "events",
        sa.Column(
            "event_key", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), nullable=False
        ),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("kind", sa.String(length=32), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=True),
        sa.Column("association_key", sa.Integer(), nullable=True),
        sa.Column("detail", sa.JSON(), nullable=False),
        sa.PrimaryKeyConstraint("event_key", name=op.f("pk_events")),
    )
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_events_at"), ["at"], unique=False)
        batch_op.create_index(batch_op.f("ix_events_study_key"), ["study_key"], unique=False)

    op.create_table(
        "models",
        sa.Column("model_key", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("version", sa.String(length=64), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("first_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("model_key", name=op.f("pk_models")),
        sa.UniqueConstraint("version", name=op.f("uq_models_version")),
    )
    op.create_table(
        "part_heartbeats",
        sa.Column("part", sa.String(length=32), nullable=False),
        sa.Column("seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("process", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("part", name=op.f("pk_part_heartbeats")),
    )
    op.create_table(
        "peers",
        sa.Column("peer_key", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("ae_title", sa.String(length=16), nullable=False),
        sa.Column("host", sa.String(length=253), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("configured", sa.Boolean(), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_failure", sa.String(length=500), nullable=True),
        sa.Column("lease_token", sa.String(length=36), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("peer_key", name=op.f("pk_peers")),
        sa.UniqueConstraint("name", name=op.f("uq_peers_name")),
    )
    op.create_table(
        "studies",
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("study_uid", sa.String(length=64), nullable=True),
        sa.Column(
            "state",
            sa.Enum(
                "received",
                "ready",
                "running",
                "delivering",
                "done",
                "failed",
                "rejected",
                name="studystate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision_started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_change_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("ready_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("woken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_token", sa.String(length=36), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("study_key", name=op.f("pk_studies")),
        sa.UniqueConstraint("study_uid", name=op.f("uq_studies_study_uid")),
    )
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_studies_state_lease_expires_at"),
            ["state", "lease_expires_at"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_studies_state_ready_at"), ["state", "ready_at"], unique=False
        )

    op.create_table(
        "association_studies",
        sa.Column("association_key", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["association_key"],
            ["associations.association_key"],
            name=op.f("fk_association_studies_association_key"),
        ),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_association_studies_study_key")
        ),
        sa.PrimaryKeyConstraint(
            "association_key", "study_key", name=op.f("pk_association_studies")
        ),
    )
    with op.batch_alter_table("association_studies", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_association_studies_study_key"), ["study_key"], unique=False
        )

    op.create_table(
        "series",
        sa.Column("series_key", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_series_study_key")
        ),
        sa.PrimaryKeyConstraint("series_key", name=op.f("pk_series")),
        sa.UniqueConstraint("study_key", "series_uid", name=op.f("uq_series_study_key_series_uid")),
    )
    op.create_table(
        "instances",
        sa.Column("instance_key", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("series_key", sa.Integer(), nullable=True),
        sa.Column("association_key", sa.Integer(), nullable=True),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=True),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("transfer_syntax_uid", sa.String(length=64), nullable=False),
        sa.Column("relative_path", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size", sa.BigInteger(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("rejection", sa.String(length=32), nullable=True),
        sa.Column("rejection_detail", sa.String(length=500), nullable=True),
        sa.ForeignKeyConstraint(
            ["association_key"],
            ["associations.association_key"],
            name=op.f("fk_instances_association_key"),
        ),
        sa.ForeignKeyConstraint(
            ["series_key"], ["series.series_key"], name=op.f("fk_instances_series_key")
        ),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_instances_study_key")
        ),
        sa.PrimaryKeyConstraint("instance_key", name=op.f("pk_instances")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_instances_sop_instance_uid")),
    )
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_instances_sha256"), ["sha256"], unique=False)
        batch_op.create_index(batch_op.f("ix_instances_study_key"), ["study_key"], unique=False)

    op.create_table(
        "inferences",
        sa.Column("inference_key", sa.Integer(), nullable=False),
        sa.Column("instance_key", sa.Integer(), nullable=False),
        sa.Column("model_key", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "started",
                "read",
                "rejected",
                "failed",
                name="inferencestate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column(
            "verdict",
            sa.Enum("normal", "pneumonia", name="verdict", native_enum=False, length=32),
            nullable=True,
        ),
        sa.Column("probability", sa.Double(), nullable=True),
        sa.Column("operating_point", sa.Double(), nullable=True),
        sa.Column("lung_area_percent", sa.Double(), nullable=True),
        sa.Column("lung_area_cm2", sa.Double(), nullable=True),
        sa.Column("gate_score", sa.Double(), nullable=True),
        sa.Column("rejection", sa.String(length=32), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["instance_key"], ["instances.instance_key"], name=op.f("fk_inferences_instance_key")
        ),
        sa.ForeignKeyConstraint(
            ["model_key"], ["models.model_key"], name=op.f("fk_inferences_model_key")
        ),
        sa.PrimaryKeyConstraint("inference_key", name=op.f("pk_inferences")),
        sa.UniqueConstraint(
            "instance_key", "model_key", name=op.f("uq_inferences_instance_key_model_key")
        ),
    )
    op.create_table(
        "instance_conflicts",
        sa.Column("conflict_key", sa.Integer(), nullable=False),
        sa.Column("instance_key", sa.Integer(), nullable=False),
        sa.Column("relative_path", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["instance_key"],
            ["instances.instance_key"],
            name=op.f("fk_instance_conflicts_instance_key"),
        ),
        sa.PrimaryKeyConstraint("conflict_key", name=op.f("pk_instance_conflicts")),
        sa.UniqueConstraint(
            "instance_key", "sha256", name=op.f("uq_instance_conflicts_instance_key_sha256")
        ),
    )
    op.create_table(
        "results",
        sa.Column("result_key", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("inference_key", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column(
            "kind",
            sa.Enum(
                "segmentation",
                "label map segmentation",
                "secondary capture",
                "presentation state",
                "report",
                name="resultkind",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("sop_class_uid", sa.String(length=64), nullable=False),
        sa.Column("sop_instance_uid", sa.String(length=64), nullable=False),
        sa.Column("series_uid", sa.String(length=64), nullable=False),
        sa.Column("relative_path", sa.String(length=255), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("superseded_by_key", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["inference_key"], ["inferences.inference_key"], name=op.f("fk_results_inference_key")
        ),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_results_study_key")
        ),
        sa.ForeignKeyConstraint(
            ["superseded_by_key"], ["results.result_key"], name=op.f("fk_results_superseded_by_key")
        ),
        sa.PrimaryKeyConstraint("result_key", name=op.f("pk_results")),
        sa.UniqueConstraint("inference_key", "kind", name=op.f("uq_results_inference_key_kind")),
        sa.UniqueConstraint("sop_instance_uid", name=op.f("uq_results_sop_instance_uid")),
    )
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_results_study_key"), ["study_key"], unique=False)

    op.create_table(
        "deliveries",
        sa.Column("delivery_key", sa.Integer(), nullable=False),
        sa.Column("study_key", sa.Integer(), nullable=False),
        sa.Column("result_key", sa.Integer(), nullable=False),
        sa.Column("peer_key", sa.Integer(), nullable=False),
        sa.Column(
            "state",
            sa.Enum(
                "pending",
                "delivered",
                "not taken",
                "failed",
                "superseded",
                name="deliverystate",
                native_enum=False,
                length=32,
            ),
            nullable=False,
        ),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("next_attempt_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("reason", sa.String(length=500), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["peer_key"], ["peers.peer_key"], name=op.f("fk_deliveries_peer_key")
        ),
        sa.ForeignKeyConstraint(
            ["result_key"], ["results.result_key"], name=op.f("fk_deliveries_result_key")
        ),
        sa.ForeignKeyConstraint(
            ["study_key"], ["studies.study_key"], name=op.f("fk_deliveries_study_key")
        ),
        sa.PrimaryKeyConstraint("delivery_key", name=op.f("pk_deliveries")),
        sa.UniqueConstraint(
            "result_key", "peer_key", name=op.f("uq_deliveries_result_key_peer_key")
        ),
    )
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_deliveries_peer_key_state_next_attempt_at"),
            ["peer_key", "state", "next_attempt_at"],
            unique=False,
        )
        batch_op.create_index(
            batch_op.f("ix_deliveries_study_key_state"), ["study_key", "state"], unique=False
        )


def downgrade() -> None:
    with op.batch_alter_table("deliveries", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_deliveries_study_key_state"))
        batch_op.drop_index(batch_op.f("ix_deliveries_peer_key_state_next_attempt_at"))

    op.drop_table("deliveries")
    with op.batch_alter_table("results", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_results_study_key"))

    op.drop_table("results")
    op.drop_table("instance_conflicts")
    op.drop_table("inferences")
    with op.batch_alter_table("instances", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_instances_study_key"))
        batch_op.drop_index(batch_op.f("ix_instances_sha256"))

    op.drop_table("instances")
    op.drop_table("series")
    with op.batch_alter_table("association_studies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_association_studies_study_key"))

    op.drop_table("association_studies")
    with op.batch_alter_table("studies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_studies_state_ready_at"))
        batch_op.drop_index(batch_op.f("ix_studies_state_lease_expires_at"))

    op.drop_table("studies")
    op.drop_table("peers")
    op.drop_table("part_heartbeats")
    op.drop_table("models")
    with op.batch_alter_table("events", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_events_study_key"))
        batch_op.drop_index(batch_op.f("ix_events_at"))

    op.drop_table("events")
    with op.batch_alter_table("associations", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_associations_listener_ended_at"))

    op.drop_table("associations")
