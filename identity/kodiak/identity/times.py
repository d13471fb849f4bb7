"""Times as the identity API writes and reads them."""
import datetime

from kodiak.common import db, errors


def seconds(moment):
    """Seconds since the epoch of a naive UTC datetime."""
    return moment.replace(tzinfo=datetime.UTC).timestamp()


def stamp(moment):
    """A naive UTC datetime as users and application credentials show it; None stays None."""
    return None if moment is None else moment.strftime('%Y-%m-%dT%H:%M:%S.%f')


def zulu(moment):
    """A naive UTC datetime as trusts and tokens show it; None stays None."""
    return None if moment is None else stamp(moment) + 'Z'


def parse(text, field):
    """The naive UTC datetime of an ISO 8601 text; ``BadRequest`` names the field."""
    try:
        return db.parse_time(text)
    except ValueError:
        raise errors.BadRequest(f'Invalid input for field/attribute {field}: it must be a time in ISO 8601 form.') from None


def future(text, field):
    """As :func:`parse`, and refuses what has passed."""
    moment = parse(text, field)
    if moment <= datetime.datetime.now(datetime.UTC).replace(tzinfo=None):
        raise errors.BadRequest(f'Invalid input for field/attribute {field}: it must lie in the future.')
    return moment
