"""Periods that are billed: the last whole hour, day, month or year in UTC."""
import datetime

#: What a moment's period begins with.
PERIODS = {
    'hour': {'minute': 0, 'second': 0, 'microsecond': 0},
    'day': {'hour': 0, 'minute': 0, 'second': 0, 'microsecond': 0},
    'month': {'day': 1, 'hour': 0, 'minute': 0, 'second': 0, 'microsecond': 0},
    'year': {'month': 1, 'day': 1, 'hour': 0, 'minute': 0, 'second': 0, 'microsecond': 0},
}


def last(period, now):
    """``(begin, end)`` of the last whole period before ``now``."""
    end = now.replace(**PERIODS[period])
    return (end - datetime.timedelta(microseconds=1)).replace(**PERIODS[period]), end
