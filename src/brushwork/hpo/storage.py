"""Where a study lies: SQLite in its folder, or a database that several machines reach, named by its URL."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from brushwork.errors import UserError

POSTGRESQL = ("postgresql", "postgres")


def address(folder: Path, url: str | None) -> str:
    """The URL that is opened: SQLite in the folder unless another is named, PostgreSQL by psycopg unless by another.

    Raises:
        UserError: PostgreSQL is named and psycopg is not installed.
    """
    if url is None:
        return f"sqlite:///{folder.absolute().as_posix()}/search.db?timeout=120"
    scheme, colon, rest = url.partition("://")
    if scheme not in (*POSTGRESQL, "postgresql+psycopg"):
        return url
    try:
        import psycopg  # noqa: F401
    except ImportError as missing:
        raise UserError(
            "a study in PostgreSQL needs psycopg, which is not installed.",
            fix="pip install 'brushwork[postgresql]'",
        ) from missing
    return f"postgresql+psycopg{colon}{rest}"


@contextmanager
def alone(url: str, name: str) -> Iterator[None]:
    """Of all that hold `name` in a PostgreSQL, one at a time; who dies lets go. Other databases hold nobody up."""
    if not url.startswith(POSTGRESQL):
        yield
        return
    import sqlalchemy  # comes with Optuna

    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool, isolation_level="AUTOCOMMIT")
    try:
        connection = engine.connect()
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise unreachable(url, error) from error
    with connection:  # what is held ends with it
        connection.execute(sqlalchemy.text("select pg_advisory_lock(hashtext(:name))"), {"name": name})
        yield


def unreachable(url: str, error: Exception) -> UserError:
    """What is told where a database does not answer, or not any more."""
    root = error.__cause__ or error
    first = str(root).splitlines()[0] if str(root) else type(root).__name__
    return UserError(
        f"the storage {without_password(url)} does not answer: {first}",
        fix="look whether it runs and whether the URL is right; the same command goes on",
    )


def without_password(url: str) -> str:
    """A storage's URL as it may be shown and kept."""
    head, at, rest = url.rpartition("@")
    scheme, slashes, user = head.partition("://")
    return f"{scheme}{slashes}{user.partition(':')[0]}{at}{rest}" if at else url
