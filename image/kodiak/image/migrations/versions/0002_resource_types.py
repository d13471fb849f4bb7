"""The resource types that metadata definitions are commonly for."""
import datetime

import sqlalchemy as sa
from alembic import op

revision = '0002'
down_revision = '0001'
branch_labels = None
depends_on = None

TYPES = ('OS::Glance::Image', 'OS::Cinder::Volume', 'OS::Nova::Flavor', 'OS::Nova::Aggregate', 'OS::Nova::Server',
         'OS::Neutron::Net', 'OS::Trove::Instance')


def upgrade():
    table = sa.table('metadef_resource_types', sa.column('name', sa.String), sa.column('created_at', sa.DateTime),
                     sa.column('updated_at', sa.DateTime))
    now = datetime.datetime.now(datetime.UTC).replace(tzinfo=None)
    op.bulk_insert(table, [{'name': name, 'created_at': now, 'updated_at': now} for name in TYPES])
