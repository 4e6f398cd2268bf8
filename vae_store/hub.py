"""The Hugging Face hub: what names a repository there, what is read from it, what is put there.

`huggingface_hub` is imported when it is used: a model in a folder needs none of it.
"""

import os
from contextlib import suppress
from pathlib import Path

from .files import LARGEST, FileError


def is_repository(directory: str | Path) -> bool:
    """Whether this is text of the form owner/name, and nothing of that name is on this disk."""
    return not os.path.lexists(directory) and _is_name(directory)


def fetch(repo_id: str, names: tuple[str, ...], revision: str | None = None) -> Path:
    """A folder of the hub's cache with these files of a repository, downloaded if they are new.

    `revision`: a branch, a tag or a commit; None: the main branch. Where the hub does not answer,
    the files are those that it gave last. Raises `FileError` (a `ValueError`) naming repository and
    file.
    """
    from huggingface_hub import HfApi, errors, snapshot_download

    place = f"the repository {repo_id} on the Hugging Face hub"
    unread = f"there is no folder {repo_id}, and {' and '.join(names)} cannot be read from {place}"
    wanted = {"revision": revision, "allow_patterns": list(names)}
    try:
        found = HfApi().get_paths_info(repo_id, list(names), revision=revision)
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError) as error:
        raise FileError(f"{unread}: {_reason(error)}") from error
    except Exception as error:  # of the hub, or of the HTTP client that its version has
        with suppress(Exception):
            folder = Path(snapshot_download(repo_id, **wanted, local_files_only=True))
            if all((folder / name).is_file() for name in names):
                return folder
        reason = f"{_reason(error)}, and the hub's cache has no copy"
        raise FileError(f"{unread}: {reason}") from error
    sizes = {one.path: getattr(one, "size", 0) for one in found}
    for name in names:
        if name not in sizes:
            raise FileError(f"there is no folder {repo_id}, and {place} has no {name}")
        if sizes[name] > LARGEST:
            held = f"{name} of {place} has {sizes[name]:,} bytes"
            raise FileError(f"{held}; at most {LARGEST:,} are expected")
    try:
        return Path(snapshot_download(repo_id, **wanted))
    except Exception as error:  # as above
        raise FileError(f"{unread}: {_reason(error)}") from error


def upload(repo_id: str, folder: str | Path, message: str, private: bool | None = None,
           token: str | None = None, replaced: tuple[str, ...] = ()) -> str:  # fmt: skip
    """Put a folder's files into a repository, in one commit; returns the commit's URL.

    A repository that is not there is made. Files of the names `replaced` that the folder lacks are
    removed from it; all others stay. Raises `ValueError` for a name that none can have, and
    `OSError` with the hub's reason.
    """
    check_name(repo_id)
    from huggingface_hub import HfApi

    api = HfApi(token=token)
    try:
        api.create_repo(repo_id, private=private, exist_ok=True)
        return api.upload_folder(
            repo_id=repo_id, folder_path=folder, commit_message=message,
            delete_patterns=list(replaced) or None,
        ).commit_url  # fmt: skip
    except Exception as error:  # as above
        refused = f"repo_id={repo_id!r}: the Hugging Face hub did not take the files"
        raise OSError(f"{refused}: {_reason(error)}") from error


def check_name(repo_id: object) -> None:
    """Raise `ValueError` for what cannot be a repository's name."""
    if not _is_name(repo_id):
        raise ValueError(f"repo_id={repo_id!r} is not allowed: 'owner/name' is expected")


def _is_name(repo_id: object) -> bool:
    """Whether this is text of the form owner/name, in letters that the hub allows."""
    if not isinstance(repo_id, str) or repo_id.count("/") != 1:
        return False
    from huggingface_hub.utils import HFValidationError, validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return True


def _reason(error: Exception) -> str:
    """What went wrong, in one line."""
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):  # which is of the next kind too
        return "its owner has to grant access first"
    if isinstance(error, errors.RepositoryNotFoundError):
        return "there is none of that name, or it is private and no token opens it"
    if isinstance(error, errors.RevisionNotFoundError):
        return "it has no such revision"
    said = getattr(error, "server_message", None) or str(error)
    return f"{type(error).__name__}: {' '.join(said.split())}"
