"""What new security groups begin with: all may leave, and into the default group its own members."""
import datetime

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade():
    now = datetime.datetime(2026, 11, 1)
    table = sa.table('default_rules', *(sa.column(name) for name in (
        'id', 'description', 'revision_number', 'direction', 'ethertype', 'remote_group_id')),
        sa.column('created_at', sa.DateTime), sa.column('updated_at', sa.DateTime),
        sa.column('used_in_default_sg', sa.Boolean), sa.column('used_in_non_default_sg', sa.Boolean))
    op.bulk_insert(table, [
        {'id': f'00000000-0000-0000-0000-00000000000{number}', 'description': '', 'revision_number': 1, 'direction': direction,
         'ethertype': ethertype, 'remote_group_id': 'PARENT' if direction == 'ingress' else None, 'created_at': now, 'updated_at': now,
         'used_in_default_sg': True, 'used_in_non_default_sg': direction == 'egress'}
        for number, (direction, ethertype) in enumerate((
            ('egress', 'IPv4'), ('egress', 'IPv6'), ('ingress', 'IPv4'), ('ingress', 'IPv6')), 1)])
