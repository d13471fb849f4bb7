"""What the tables of network share: the metadata, and the columns that every resource has."""
import sqlalchemy as sa

from kodiak.common import db, heartbeat, outbox, quota

metadata = db.metadata()
heartbeat.tables(metadata)
outbox.tables(metadata)
quota.tables(metadata)


def key():
    """The primary key of a resource."""
    return sa.Column('id', sa.String(36), primary_key=True)


def project():
    """The project that a resource belongs to; empty for what belongs to the cloud itself."""
    return sa.Column('project_id', sa.String(64), nullable=False, index=True)


def standard():
    """The columns that every resource of the API has."""
    return [
        sa.Column('description', sa.String(255), nullable=False, default=''),
        sa.Column('tags', db.JSON, default=list),
        sa.Column('revision_number', sa.Integer, nullable=False, default=1),
        sa.Column('created_at', sa.DateTime, nullable=False, default=db.utcnow),
        sa.Column('updated_at', sa.DateTime, nullable=False, default=db.utcnow),
    ]


def name(size=255):
    """The name of a resource, which need not be unique."""
    return sa.Column('name', sa.String(size), nullable=False, default='', index=True)


def generation():
    """Grows whenever the document that agents get of this row changes."""
    return sa.Column('generation', sa.Integer, nullable=False, default=1)


def refers(column, table, nullable=False, index=True, **more):
    """A column with the id of a row of another table."""
    return sa.Column(column, sa.String(36), sa.ForeignKey(table + '.id', **more), nullable=nullable, index=index)


def flag(column, default=False):
    """A boolean that is never NULL."""
    return sa.Column(column, sa.Boolean, nullable=False, default=default)
