"""The ``metadata`` that every table of the compute service is on."""
from kodiak.common import db

metadata = db.metadata()
