"""The volume type of volumes whose maker names none."""
import datetime

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade():
    table = sa.table('volume_types', *(sa.column(name) for name in ('id', 'name', 'description', 'extra_specs')),
                     sa.column('is_public', sa.Boolean), sa.column('created_at', sa.DateTime))
    op.bulk_insert(table, [{
        'id': '00000000-0000-4000-8000-000000000001', 'name': '__DEFAULT__', 'description': 'Default Volume Type', 'is_public': True,
        'extra_specs': '{}', 'created_at': datetime.datetime(2026, 11, 1)}])
