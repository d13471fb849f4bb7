"""``kodiak forget HOST``: takes the API and conductor processes of a host that is gone from the lists.

Agents are not taken away here: what they kept in order has to go with them, which the APIs of their services see to.
"""
import sqlalchemy as sa
from sqlalchemy import exc

from kodiak.common import db, heartbeat

KINDS = ('-api', '-conductor')


def forget(found, host):
    """Delete the rows of the silent processes of a host.

    :param found: the installed services. :returns: ``(done, left)``: sentences about what was deleted, and about what was not.
    """
    done, left = [], []
    for service in found:
        if service.problem or not service.has_tables or service.agent_only:
            continue
        try:
            with service.database() as database:
                for row in database.transact(_forget, host):
                    if row['binary'].endswith(KINDS) and not heartbeat.is_up(row):
                        done.append(f'{row["binary"]} on {host} is forgotten.')
                    elif row['binary'].endswith(KINDS):
                        left.append(f'{row["binary"]} on {host} is up, or was within {heartbeat.DOWN_AFTER} s: stop it first.')
                    else:
                        left.append(f'{row["binary"]} on {host} belongs to an agent: delete it through the API of {service.name}.')
        except (exc.SQLAlchemyError, OSError) as error:
            left.append(f'The database of {service.name} cannot be opened: {str(error).splitlines()[0]}')
    return done, left


def _forget(connection, host):
    rows = db.all_dicts(connection, heartbeat.query(host=host))
    gone = [row['id'] for row in rows if row['binary'].endswith(KINDS) and not heartbeat.is_up(row)]
    connection.execute(sa.delete(heartbeat.services).where(heartbeat.services.c.id.in_(gone)))
    return rows
