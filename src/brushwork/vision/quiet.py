"""Loading models by transformers without its own bars and warnings."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging as their_logging


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Within it, transformers says nothing: what is wrong is told by us. Afterwards it speaks as it did before."""
    level, bars = their_logging.get_verbosity(), their_logging.is_progress_bar_enabled()
    their_logging.set_verbosity_error()
    their_logging.disable_progress_bar()
    try:
        yield
    finally:
        their_logging.set_verbosity(level)
        if bars:
            their_logging.enable_progress_bar()
