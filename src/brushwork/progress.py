"""How a long piece of work tells how far it is; who listens, it does not know."""

from collections.abc import Callable

Progress = Callable[[int, int], None]
"""Called with how many are done, and of how many."""
