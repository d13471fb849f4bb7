"""The ``metadata`` that every table of block storage is on, and columns that many of them have."""
import sqlalchemy as sa

from kodiak.common import db

metadata = db.metadata()

NUMBER = sa.BigInteger().with_variant(sa.Integer, 'sqlite')
UUID = sa.String(36)


def uuid_key():
    """The primary key of what users see by its id."""
    return sa.Column('id', UUID, primary_key=True)


def moments():
    """When a row was made and last changed."""
    return sa.Column('created_at', db.Moment, nullable=False), sa.Column('updated_at', db.Moment)
