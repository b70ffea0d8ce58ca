"""Work on many things is shared between processes that have nothing of this one: each is asked, and answers.

They are started as programs of their own, `python -m brushwork.vision.sharing MODULE`, and not by multiprocessing: a
copy of a process with torch's threads may hang, and a new one would first run the user's own script once more. They
read questions from their standard input and end when it is closed, so that none outlives the process that asks.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import IO, Any

Row = dict[str, Any]
Found = tuple[str, Row]


@contextmanager
def answers(module: str, task: Row, questions: Mapping[str, str], processes: int) -> Iterator[Iterator[Found]]:
    """The names of the questions with their answers, as they come. Those on which a process dies are left out.

    Args:
        module: where `answer(task)` stands, which makes the function from a question to its answer.
    """
    todo = iter(questions.items())
    lock, found = threading.Lock(), queue.Queue[Found | None]()
    workers = [_start(module) for _ in range(processes)]
    threads = [
        threading.Thread(target=_ask, args=(worker, task, todo, lock, found), daemon=True) for worker in workers
    ]
    try:
        for thread in threads:
            thread.start()
        yield _until_all_are_done(found, len(threads))
    finally:
        for worker in workers:
            worker.kill()
        for worker, thread in zip(workers, threads, strict=True):
            thread.join()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                with suppress(OSError):
                    assert pipe is not None
                    pipe.close()


def _until_all_are_done(found: "queue.Queue[Found | None]", count: int) -> Iterator[Found]:
    while count:
        answer = found.get()
        if answer is None:
            count -= 1
        else:
            yield answer


def _start(module: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    return subprocess.Popen(
        [sys.executable, "-m", __name__, module],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        encoding="ascii",  # as JSON is written here, whatever the system's own encoding is
        env=environment,
    )


def _ask(
    worker: "subprocess.Popen[str]",
    task: Row,
    todo: Iterator[tuple[str, str]],
    lock: threading.Lock,
    found: "queue.Queue[Found | None]",
) -> None:
    """One process is kept busy until nothing is left to do, or it is gone."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(OSError, ValueError):  # it is gone: killed, or out of memory
        _say(worker.stdin, task)
        while True:
            with lock:
                question = next(todo, None)
            if question is None:
                break
            _say(worker.stdin, question[1])
            found.put((question[0], json.loads(worker.stdout.readline())))
    found.put(None)


def _say(pipe: IO[str], value: Any) -> None:
    pipe.write(json.dumps(value) + "\n")
    pipe.flush()


def _serve(module: str) -> None:
    """In the other process: answer until nobody asks any more. Ctrl-C is for the one that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answer: Callable[[str], Row] = import_module(module).answer(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        _say(sys.stdout, answer(json.loads(line)))


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        _serve(sys.argv[1])
