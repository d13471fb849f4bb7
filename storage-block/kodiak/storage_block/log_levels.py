"""How much the processes of block storage log, asked and changed while they run."""
import logging

LEVELS = ('CRITICAL', 'ERROR', 'WARNING', 'INFO', 'DEBUG')


class Handlers:
    """What both the conductor and agents answer about it."""

    def log_levels(self, context, prefix):
        """See the tables."""
        return levels(prefix)

    def set_log_level(self, context, prefix, level):
        """See the tables."""
        set_level(prefix, level)


def levels(prefix):
    """``{logger: level}`` of this process, for loggers whose name begins with ``prefix``."""
    return {name: logging.getLevelName(found.getEffectiveLevel()) for name, found in sorted(logging.root.manager.loggerDict.items())
            if name.startswith(prefix) and isinstance(found, logging.Logger)}


def set_level(prefix, level):
    """Have those loggers say what is of ``level`` and above; all of them where there is no prefix."""
    for name in levels(prefix):
        logging.getLogger(name).setLevel(level)
    if not prefix:
        logging.getLogger().setLevel(level)
