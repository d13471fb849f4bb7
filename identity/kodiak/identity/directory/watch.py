"""Looking through the directories now and then: who is new, who is disabled, who is gone."""
import datetime
import logging

import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, errors, periodic

from ..models import directory_looks

LOG = logging.getLogger(__name__)
STEP, INTERVAL = 15, 300        # seconds


def watch(core):
    """A thread of each API process; for each directory, one of them takes its turn."""
    return periodic.Periodic('directories', lambda: look(core, INTERVAL), STEP)


def look(core, interval):
    """Look through each directory that has not been for ``interval`` seconds. Returns the ids of the domains."""
    core.state.look()
    with core.db.read() as connection:
        domain_ids = list(core.directories.domains(connection))
    due = [domain_id for domain_id in domain_ids if core.db.transact(_turn, domain_id, interval)]
    for domain_id in due:
        try:
            core.directories.refresh(domain_id)
            fault = None
        except errors.Error as error:
            fault = error.message
        except Exception:
            LOG.exception('Domain %s: its directory cannot be looked through', domain_id)
            fault = 'An unexpected error; the log has it.'
        core.db.transact(_note, domain_id, fault)
    return due


def _turn(connection, domain_id, interval):
    now = db.utcnow()
    done = connection.execute(sa.update(directory_looks).where(
        directory_looks.c.domain_id == domain_id,
        directory_looks.c.looked_at <= now - datetime.timedelta(seconds=interval)).values(looked_at=now))
    if done.rowcount:
        return True
    if connection.execute(sa.select(directory_looks.c.domain_id).where(directory_looks.c.domain_id == domain_id)).first():
        return False
    try:
        with connection.begin_nested():
            connection.execute(directory_looks.insert().values(domain_id=domain_id, looked_at=now))
        return True
    except exc.IntegrityError:
        return False


def _note(connection, domain_id, fault):
    connection.execute(sa.update(directory_looks).where(directory_looks.c.domain_id == domain_id).values(fault=fault))
