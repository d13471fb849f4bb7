"""directories: domains whose users live in LDAP."""
import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import mysql

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        'directory_entries',
        sa.Column('id', sa.String(length=64), nullable=False),
        sa.Column('domain_id', sa.String(length=64), nullable=False),
        sa.Column('kind', sa.String(length=8), nullable=False),
        sa.Column('key', sa.String(length=255), nullable=False),
        sa.Column('dn', sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(['domain_id'], ['projects.id'], name=op.f('fk_directory_entries_domain_id_projects'),
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('id', name=op.f('pk_directory_entries')),
        sa.UniqueConstraint('domain_id', 'kind', 'key', name=op.f('uq_directory_entries_domain_id_kind_key')))
    op.create_table(
        'directory_looks',
        sa.Column('domain_id', sa.String(length=64), nullable=False),
        sa.Column('looked_at', sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql'), nullable=False),
        sa.Column('fault', sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(['domain_id'], ['projects.id'], name=op.f('fk_directory_looks_domain_id_projects'),
                                ondelete='CASCADE'),
        sa.PrimaryKeyConstraint('domain_id', name=op.f('pk_directory_looks')))
    with op.batch_alter_table('groups', schema=None) as batch_op:
        batch_op.add_column(sa.Column('kind', sa.String(length=16), server_default='local', nullable=False))
