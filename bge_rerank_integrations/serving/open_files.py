"""The number of files that this process may open: each connection is one."""

from __future__ import annotations

import logging
from contextlib import suppress

logger = logging.getLogger(__name__)


def raise_open_files(needed: int) -> int:
    """Raise this process's soft limit of open files, at most to its hard limit.

    A server that may open no more files leaves new connections unanswered, probes too. Logs a
    warning where the limit stays below what is needed; where a system has no such limit, nothing is
    done.

    :returns: how many of the needed files may be opened.
    """
    try:
        import resource
    except ModuleNotFoundError:
        return needed
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if _allows(soft, needed):
        return needed
    # some systems allow less than they say
    with suppress(OSError, ValueError):
        wanted = needed if _allows(hard, needed) else hard
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    if soft < needed:
        logger.warning(
            "this process may open %d files, and its connections need %d: it takes fewer. Raise "
            "the hard limit (ulimit -Hn, LimitNOFILE) or lower --max-connections",
            soft,
            needed,
        )
    return min(soft, needed)


def _allows(limit: int, needed: int) -> bool:
    import resource

    return limit == resource.RLIM_INFINITY or limit >= needed
