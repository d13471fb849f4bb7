"""limits of single users."""
import sqlalchemy as sa
from alembic import op

revision = 'c0de00000002'
down_revision = 'c0de00000001'
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        'user_quotas',
        sa.Column('project_id', sa.String(length=64), nullable=False),
        sa.Column('user_id', sa.String(length=64), nullable=False),
        sa.Column('resource', sa.String(length=64), nullable=False),
        sa.Column('hard_limit', sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint('project_id', 'user_id', 'resource', name=op.f('pk_user_quotas')))
