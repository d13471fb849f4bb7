"""The tables of :mod:`kodiak.common.saga`, and the statements that its workers run on them, built once."""
import sqlalchemy as sa

from kodiak.common import db

_metadata = db.metadata()
_number = sa.BigInteger().with_variant(sa.Integer, 'sqlite')
rows = sa.Table(
    'sagas', _metadata,
    sa.Column('id', _number, primary_key=True, autoincrement=True),
    sa.Column('name', sa.String(64), nullable=False),
    sa.Column('resource_id', sa.String(255), nullable=False, index=True),
    sa.Column('state', sa.String(16), nullable=False),           # running, unwinding, done, failed
    sa.Column('step', sa.Integer, nullable=False),               # the step to do, or to undo, next
    sa.Column('data', db.JSON),
    sa.Column('context', db.JSON),
    sa.Column('request_id', sa.String(64), index=True),
    sa.Column('global_request_id', sa.String(64), index=True),
    sa.Column('lease_owner', sa.String(128)),
    sa.Column('lease_until', sa.Double, nullable=False),         # these times are seconds since 1970
    sa.Column('next_run_at', sa.Double, index=True),             # NULL once it is finished
    sa.Column('deadline_at', sa.Double, nullable=False),
    sa.Column('began_at', sa.Double, nullable=False),            # when the present step was first run
    sa.Column('attempts', sa.Integer, nullable=False),           # failed ones of the present step
    sa.Column('version', sa.Integer, nullable=False),            # counts what its workers wrote
    sa.Column('nudges', sa.Integer, nullable=False),
    sa.Column('waiting', sa.Text),                               # what the present step waits for
    sa.Column('abort', sa.Text),                                 # why it is to stop
    sa.Column('error', db.JSON),                                 # errors.to_dict() of what failed, with its step
    sa.Column('created_at', sa.DateTime, nullable=False),
    sa.Column('updated_at', sa.DateTime, nullable=False),
    sqlite_autoincrement=True)
log = sa.Table(
    'saga_steps', _metadata,
    sa.Column('id', _number, primary_key=True, autoincrement=True),
    sa.Column('saga_id', _number, nullable=False, index=True),
    sa.Column('step', sa.String(64), nullable=False),
    sa.Column('action', sa.String(16), nullable=False),          # do, undo, on_failure
    sa.Column('outcome', sa.String(16), nullable=False),         # done, failed, retried, skipped
    sa.Column('attempts', sa.Integer, nullable=False),
    sa.Column('started_at', sa.Double, nullable=False),
    sa.Column('ended_at', sa.Double, nullable=False),
    sa.Column('error', sa.Text),
    sqlite_autoincrement=True)


def tables(metadata):
    """Add the tables ``sagas`` and ``saga_steps`` to a service's metadata."""
    return rows.to_metadata(metadata), log.to_metadata(metadata)


_earlier = rows.alias()
DUE = sa.select(rows.c.id).where(
    rows.c.next_run_at <= sa.bindparam('now'), rows.c.lease_until <= sa.bindparam('now'),
    ~sa.exists().where(_earlier.c.resource_id == rows.c.resource_id, _earlier.c.id < rows.c.id,
                       _earlier.c.next_run_at.is_not(None))).order_by(rows.c.next_run_at).limit(sa.bindparam('many'))
LEASE = sa.update(rows).where(
    rows.c.id.in_(sa.bindparam('ids', expanding=True)), rows.c.next_run_at <= sa.bindparam('now'),
    rows.c.lease_until <= sa.bindparam('now'),
).values(lease_owner=sa.bindparam('owner'), lease_until=sa.bindparam('until'), version=rows.c.version + 1)
LEASED = sa.select(rows).where(rows.c.id.in_(sa.bindparam('ids', expanding=True)),
                                rows.c.lease_owner == sa.bindparam('owner'))
EXTEND = sa.update(rows).where(rows.c.id.in_(sa.bindparam('ids', expanding=True)),
                                rows.c.lease_owner.like(sa.bindparam('owner'))).values(lease_until=sa.bindparam('until'))
NAMES = ('state', 'step', 'data', 'attempts', 'began_at', 'lease_owner', 'lease_until', 'deadline_at', 'waiting', 'error')
_advance = sa.update(rows).where(
    rows.c.id == sa.bindparam('row_id'), rows.c.version == sa.bindparam('row_version'),
    sa.or_(rows.c.abort.is_(None), sa.bindparam('aborting', type_=sa.Boolean)),
).values(version=rows.c.version + 1, updated_at=sa.bindparam('when'), **{name: sa.bindparam('new_' + name) for name in NAMES})
# A nudge that came while the step ran must not be lost: then the row stays due.
SAVE = _advance.values(next_run_at=sa.case((rows.c.nudges == sa.bindparam('seen'), sa.bindparam('later')),
                                            else_=sa.bindparam('now')))
FINISH = _advance.values(next_run_at=None)
