"""The metadata that all tables of identity stand on, and the columns that many of them share."""
import sqlalchemy as sa

from kodiak.common import db

metadata = db.metadata()

#: ``domain_id`` of what belongs to no domain: a domain itself, a role of all domains. Not NULL, so that unique
#: constraints hold for it.
NO_DOMAIN = ''


#: A time with microseconds.
TIME = db.Moment()


def key(name='id'):
    """A primary key of identity: a uuid in hex, or a name that a person chose (``default``, a region)."""
    return sa.Column(name, sa.String(64), primary_key=True)


def ref(name, target, **more):
    """A column that refers to another table's row and goes with it."""
    return sa.Column(name, sa.String(64), sa.ForeignKey(target, ondelete='CASCADE'), **more)


def extra(name='extra'):
    """Attributes that users set and identity doesn't know: kept and shown as they are."""
    return sa.Column(name, db.JSON, nullable=False, default=dict)
