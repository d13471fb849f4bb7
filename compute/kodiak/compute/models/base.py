"""The ``metadata`` that every table of the compute service is on, and column types that differ from database to database."""
from kodiak.common import db

metadata = db.metadata()

#: A moment with its microseconds, which MySQL's DATETIME drops: servers that were made in one second have an order.
MOMENT = db.Moment()
#: MySQL's TEXT ends at 64 KiB.
LONG_TEXT = db.LongText()
