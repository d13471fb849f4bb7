"""What a volume made of a backup has of the one that was backed up."""
import sqlalchemy as sa
from alembic import op

import kodiak.common.db

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade():
    with op.batch_alter_table('backups') as batch:
        batch.add_column(sa.Column('volume', kodiak.common.db.JSON(), nullable=True))
