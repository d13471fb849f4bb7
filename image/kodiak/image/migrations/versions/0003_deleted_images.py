"""Deleted images that can be brought back."""
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

from kodiak.common import db

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        'deleted_images', sa.Column('id', sa.String(36), nullable=False), sa.Column('image', db.JSON(), nullable=False),
        sa.Column('members', db.JSON(), nullable=False),
        sa.Column('due', sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql'), nullable=False),
        sa.PrimaryKeyConstraint('id', name='pk_deleted_images'))
    op.create_index('ix_deleted_images_due', 'deleted_images', ['due'])
