"""The operator's command: ``kodiak status``, ``kodiak trace``, ``kodiak doctor``, ``kodiak forget``."""
