"""A PostgreSQL server of the tests' own: a folder that is removed again, a free port, a name and a password."""

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

NAME, PASSWORD = "brushwork", "a-long-secret"


@dataclass
class Server:
    """A server that can be stopped and started again.

    Args:
        programs: where `initdb` and `postgres` lie.
        user: who runs it: PostgreSQL refuses to be run by root.
    """

    programs: Path
    folder: Path
    port: int
    user: str | None
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql://{NAME}:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def make(self) -> None:
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if self.user is not None:
            for path in (self.folder, secret):
                shutil.chown(path, self.user)
        words = ["-D", self.folder / "data", "-U", NAME, "--pwfile", secret, "--auth", "scram-sha-256", "--no-sync"]
        subprocess.run([self.programs / "initdb", *words], check=True, capture_output=True, user=self.user, cwd="/")

    def start(self) -> None:
        words = ["-D", self.folder / "data", "-p", str(self.port), "-k", self.folder, "-c", "fsync=off"]
        log = (self.folder / "log.txt").open("ab")
        self.process = subprocess.Popen(
            [self.programs / "postgres", *words], stdout=log, stderr=log, user=self.user, cwd="/"
        )
        ready = [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        until = time.monotonic() + 120
        while subprocess.run(ready, check=False).returncode:
            told = (self.folder / "log.txt").read_text()
            assert self.process.poll() is None, told
            assert time.monotonic() < until, told
            time.sleep(0.1)

    def stop(self) -> None:
        """At once, as when its machine goes down: whoever is connected loses the connection."""
        if self.process is not None:
            self.process.send_signal(3)  # SIGQUIT
            self.process.wait()
        self.process = None


def find_programs() -> Path | None:
    """The folder of the server's programs: POSTGRESQL names it, or they are on the path, or where Debian has them."""
    named = os.environ.get("POSTGRESQL")
    found = shutil.which("initdb")
    folders = [Path(named)] if named else []
    folders += [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").is_file()), None)


@contextmanager
def served(programs: Path) -> Iterator[Server]:
    """A server that runs."""
    user = None
    if os.geteuid() == 0:
        known = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in known else "nobody"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = Path(tempfile.mkdtemp(prefix="postgresql-"))
    server = Server(programs, folder, port, user)
    try:
        server.make()
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder)
