"""Runs a function in several processes at once, each with the environment that torchrun gives it."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(  # imported once for all
    ["brushwork.training.run", "brushwork.generation.generate", "brushwork.vision.embeddings"]
)


def together(job: Callable[..., Any], *arguments: Any, size: int = 2) -> list[Any]:
    """`job(rank, *arguments)` in each process; -> what it returned, or the error that it ended with, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ProcessPoolExecutor(size, mp_context=_CONTEXT) as pool:
        waiting = [pool.submit(_run, rank, size, port, dict(os.environ), job, arguments) for rank in range(size)]
        return [each.result(timeout=300) for each in waiting]


def _run(
    rank: int, size: int, port: int, environment: dict[str, str], job: Callable[..., Any], arguments: Any
) -> Any:
    import torch

    torch.set_num_threads(1)
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = {"RANK": str(rank), "WORLD_SIZE": str(size), "LOCAL_RANK": str(rank)}
    os.environ.update(environment | place | ranks)
    try:
        return job(rank, *arguments)
    except (Exception, SystemExit) as error:
        return error
