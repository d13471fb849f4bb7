from alembic import context

from kodiak.common import migrate

migrate.run_env(context)
