"""Asking the Hugging Face hub, for models and for data sets: where files lie here, and what went wrong in words."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from huggingface_hub import constants
from huggingface_hub.errors import (  # type: ignore[attr-defined]
    EntryNotFoundError,
    GatedRepoError,
    HFValidationError,
    HTTPError,  # that of httpx or of requests, whichever the installed huggingface_hub uses
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from brushwork.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Repository:
    """A repository on the hub, at one of its revisions."""

    id: str
    """`owner/name`"""
    kind: Literal["model", "dataset"]
    revision: str | None = None
    """None is its newest."""

    @property
    def page(self) -> str:
        """Where a person looks at it."""
        return f"https://huggingface.co/{'datasets/' if self.kind == 'dataset' else ''}{self.id}"

    def cached(self) -> Path | None:
        """The folder of this revision in the hub's cache, which need not be whole; None where there is none."""
        repo = Path(constants.HF_HUB_CACHE) / f"{self.kind}s--{self.id.replace('/', '--')}"
        revision = self.revision or "main"
        reference = repo / "refs" / revision
        commit = reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision
        folder = repo / "snapshots" / commit
        return folder if folder.is_dir() else None


def is_offline() -> bool:
    """Whether HF_HUB_OFFLINE forbids asking."""
    return bool(constants.HF_HUB_OFFLINE)


def asked(repository: Repository, ask: Callable[[], T], *, file: str | None = None) -> T:
    """Ask the hub, and turn what can go wrong into a sentence.

    Args:
        file: what is asked for, where it is one file.
    """
    name, page, what = repository.id, repository.page, repository.kind.replace("dataset", "data set")
    try:
        return ask()
    except GatedRepoError as error:
        raise UserError(
            f"{name} is gated: its owner gives it to those who agreed to the terms on its page.",
            fix=f"open {page}, agree, make a token in your account's settings, and type: hf auth login",
        ) from error
    except RepositoryNotFoundError as error:
        raise UserError(
            f"the hub has no {what} {name}, or it is private.",
            fix=f"check the name on {page}; for a private one: hf auth login",
        ) from error
    except RevisionNotFoundError as error:
        raise UserError(f"{name} has no revision {repository.revision!r}.", fix=f"see {page}/commits/main") from error
    except HFValidationError as error:
        raise UserError(f"{name!r} is no hub id: {error}.", fix="write it as owner/name") from error
    except OfflineModeIsEnabled as error:
        raise UserError("HF_HUB_OFFLINE forbids asking the hub.", fix="unset HF_HUB_OFFLINE") from error
    except LocalEntryNotFoundError as error:
        raise _unreachable(repository, file, error) from error
    except EntryNotFoundError as error:
        raise UserError(f"{name} has no file {file}.", fix=f"see {page}/tree/main") from error
    except (HTTPError, OSError) as error:
        raise _unreachable(repository, file, error) from error


def _unreachable(repository: Repository, file: str | None, error: Any) -> UserError:
    cause = error.__cause__ or error
    reason = str(cause).partition("\n")[0] or repr(cause)
    name = repository.id + (f"/{file}" if file else "") + (f"@{repository.revision}" if repository.revision else "")
    return UserError(
        f"{name} is not whole in the hub's cache, and fetching it failed: {reason}.",
        fix="check the connection and the free disk space, and try again: what was fetched so far is kept",
    )
