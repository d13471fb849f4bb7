"""Schema migrations of a service: alembic, with an expand and a contract branch for upgrades without a stop.

A service's ``migrations/versions`` holds revisions. Those that only add carry the branch label ``expand``; those that
take away depend on them and carry ``contract``. ``sync`` runs both; an operator of several nodes runs ``expand``,
upgrades the processes, then runs ``contract``.
"""
import importlib
import importlib.resources

import sqlalchemy as sa
from alembic import autogenerate, command, config, migration, script


def _package(service):
    return 'kodiak.' + service.replace('-', '_')


def _config(database, service):
    folder = importlib.resources.files(_package(service)) / 'migrations'
    made = config.Config()
    made.set_main_option('script_location', str(folder).replace('%', '%%'))
    made.set_main_option('file_template', '%%(rev)s_%%(slug)s')
    made.attributes['database'] = database
    made.attributes['metadata'] = importlib.import_module(_package(service) + '.models').metadata
    return made


def run_env(context):
    """What every service's ``migrations/env.py`` calls."""
    database = context.config.attributes['database']
    with database.engine.connect() as connection:
        context.configure(connection=connection, target_metadata=context.config.attributes['metadata'],
                          render_as_batch=database.sqlite, compare_type=True, transaction_per_migration=True)
        with context.begin_transaction():
            context.run_migrations()
        connection.commit()


def prepare(database):
    """Have a new database of MySQL or MariaDB tell names apart as the others do: by case, accents, and spaces at the end.

    A database that has tables keeps the order that it has.
    """
    if database.url.get_backend_name() not in ('mysql', 'mariadb'):
        return
    with database.engine.connect() as connection:
        if sa.inspect(connection).get_table_names():
            return
        collation = 'utf8mb4_nopad_bin' if connection.dialect.is_mariadb else 'utf8mb4_0900_bin'
        name = connection.dialect.identifier_preparer.quote(database.url.database)
        connection.exec_driver_sql(f'ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE {collation}')


def sync(database, service, target='heads'):
    """Bring the schema to ``target`` (``heads``, ``expand@head``, ``contract@head``); a branch
    without revisions asks for nothing."""
    branch = target.partition('@')[0] if '@' in target else None
    if branch and not any(branch in revision.branch_labels for revision in _scripts(service).walk_revisions()):
        return
    prepare(database)
    command.upgrade(_config(database, service), target)


def revision(database, service, message):
    """Write a new revision from the difference between the models and the database."""
    command.revision(_config(database, service), message=message, autogenerate=True)


def current(database):
    """The revisions that the database is at, as a sorted list."""
    with database.engine.connect() as connection:
        return sorted(migration.MigrationContext.configure(connection).get_current_heads())


def _scripts(service):
    return script.ScriptDirectory(str(importlib.resources.files(_package(service)) / 'migrations'))


def heads(service):
    """The newest revisions that the code knows, as a sorted list."""
    return sorted(_scripts(service).get_heads())


def differences(database, service):
    """What the models have and the database has not, and the reverse (alembic's list of operations)."""
    models = importlib.import_module(_package(service) + '.models')
    with database.engine.connect() as connection:
        context = migration.MigrationContext.configure(connection, opts={'compare_type': False})
        return [diff for diff in autogenerate.compare_metadata(context, models.metadata)
                if not _only_sqlite(diff, database)]


def _only_sqlite(diff, database):
    # SQLite reflects no names for some unique constraints; they are there all the same.
    return database.sqlite and isinstance(diff, tuple) and diff[0] in ('add_constraint', 'remove_constraint')


def ready(database, service):
    """True if the schema is at the newest revision."""
    try:
        return current(database) == heads(service)
    except sa.exc.SQLAlchemyError:
        return False
