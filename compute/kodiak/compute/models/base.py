"""The ``metadata`` that every table of the compute service is on, and column types that differ from database to database."""
import sqlalchemy as sa
from sqlalchemy.dialects import mysql

from kodiak.common import db

metadata = db.metadata()

#: A moment with its microseconds, which MySQL's DATETIME drops: servers that were made in one second have an order.
MOMENT = sa.DateTime().with_variant(mysql.DATETIME(fsp=6), 'mysql', 'mariadb')
#: MySQL's TEXT ends at 64 KiB.
LONG_TEXT = sa.Text().with_variant(mysql.MEDIUMTEXT(), 'mysql', 'mariadb')
