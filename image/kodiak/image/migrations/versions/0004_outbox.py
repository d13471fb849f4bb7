"""The outbox of notifications."""
import sqlalchemy as sa
from alembic import op

from kodiak.common import db

revision = '0004'
down_revision = '0003'
branch_labels = None
depends_on = None


def _given(name, kind, size=None):
    return sa.Column(name, kind(size) if size else kind(), nullable=False)


def upgrade():
    op.create_table(
        'outbox', sa.Column('id', sa.BigInteger().with_variant(sa.Integer(), 'sqlite'), autoincrement=True, nullable=False),
        _given('message_id', sa.String, 36), _given('event_type', sa.String, 255), sa.Column('resource_id', sa.String(255)),
        sa.Column('payload', db.JSON()), sa.Column('context', db.JSON()), _given('created_at', sa.DateTime),
        _given('next_run_at', sa.Double), sa.Column('lease_owner', sa.String(128)), _given('lease_until', sa.Double),
        _given('attempts', sa.Integer), sa.PrimaryKeyConstraint('id', name='pk_outbox'), sqlite_autoincrement=True)
    for column in ('next_run_at', 'resource_id'):
        op.create_index(f'ix_outbox_{column}', 'outbox', [column])
