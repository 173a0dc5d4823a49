"""Upload files to a repository on the Hugging Face Hub in one commit, whole or not at all."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled, RevisionNotFoundError
from huggingface_hub.utils import build_hf_headers, validate_repo_id
from huggingface_hub.utils._runtime import is_xet_available

from ..errors import USDRLError
from ..facts.checkpoints import namespace
from ..lookup import XET_ONLY, insists_on_xet

# The form of the hub's access tokens.
TOKEN = re.compile(r"\b(hf|api_org)_[A-Za-z0-9]{16,}")


class PublishError(USDRLError):
    """A model or a data set that cannot be published; the message says why and what to do."""


@dataclass(frozen=True)
class Commit:
    """How and where a commit on the hub is made.

    Attributes:
        message: The commit's message.
        revision: Branch, made where it is missing; main where None.
        create_pr: Open a pull request instead of committing.
        private: Whether the repository is private; the owner's default for a new one where None.
        token: Access token; that of ``hf auth login`` or HF_TOKEN where None.
    """

    message: str | None = None
    revision: str | None = None
    create_pr: bool = False
    private: bool | None = None
    token: str | None = None


def repository_name(name: str) -> str:
    """The name of a repository with its owner; a bare name gets the namespace of this project.

    Raises:
        PublishError: If it cannot be one.
    """
    name = name if "/" in name else f"{namespace()}/{name}"
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise PublishError(f"'{name}' cannot be a repository's name: {without_token(error)}") from None
    return name


def upload(
    repo_id: str, files: Mapping[str, Path], commit: Commit, *, kind: str = "model", stale: tuple[str, ...] = ()
) -> tuple[str, bool]:
    """Commit files to a repository, which is made if it is missing.

    Args:
        repo_id: The repository.
        files: Name in the repository -> file.
        commit: Message, branch, pull request, visibility and token.
        kind: "model" or "dataset".
        stale: Patterns of files that are deleted where they are not among `files`.

    Returns:
        The URL of the commit or pull request, and whether anything changed.

    Raises:
        PublishError: If the hub refuses or is unreachable. The repository is then unchanged; a new one is deleted
            again, and if that fails the error says so.
    """
    api, is_ours = HfApi(token=commit.token), False
    try:
        is_ours = _create(api, repo_id, kind, commit.private)
        return _commit(api, repo_id, kind, files, commit, stale)
    except BaseException as error:
        # The reason first: it may need the repository, which is then deleted.
        reason = _reason(api, repo_id, kind, error) if isinstance(error, Exception) else ""
        reason += _delete_new(api, repo_id, kind, commit.revision) if is_ours else ""
        if isinstance(error, Exception):
            raise PublishError(reason) from None
        raise


def any_of(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a path fits one of some patterns."""
    return any(fnmatch(path, pattern) for pattern in patterns)


def _create(api: HfApi, repo_id: str, kind: str, private: bool | None) -> bool:
    """Make the repository if it is missing, and return whether it was."""
    try:
        api.create_repo(repo_id, repo_type=kind, private=private)
    except HfHubHTTPError:
        # Most likely it exists; the client knows which other refusals mean the same.
        api.create_repo(repo_id, repo_type=kind, private=private, exist_ok=True)
        return False
    return True


def _delete_new(api: HfApi, repo_id: str, kind: str, revision: str | None) -> str:
    """Delete the repository that was made for a failed commit, and return what the user has to know about it."""
    try:
        try:
            about: Any = api.repo_info(repo_id, repo_type=kind, revision=revision)
            holds = about.siblings or ()
        except RevisionNotFoundError:
            holds = ()
        if any(file.rfilename != ".gitattributes" for file in holds):
            return f"; but {repo_id} holds files now: look whether the commit has arrived all the same"
        api.delete_repo(repo_id, repo_type=kind, missing_ok=True)
    except Exception:
        return f"; the repository that was made for it could not be deleted: delete {repo_id} on the hub"
    return ""


def _commit(
    api: HfApi, repo_id: str, kind: str, files: Mapping[str, Path], commit: Commit, stale: tuple[str, ...]
) -> tuple[str, bool]:
    """Make the branch if it is missing, and commit; return the URL, and whether anything changed."""
    revision, create_pr = commit.revision, commit.create_pr
    if commit.private and not api.repo_info(repo_id, repo_type=kind).private:
        raise PublishError(
            f"{repo_id}: it exists already and is public: make it private first, or leave out --private"
        )
    if revision is not None and not create_pr:
        api.create_branch(repo_id, repo_type=kind, branch=revision, exist_ok=True)
    before: Any = api.repo_info(repo_id, repo_type=kind, revision=None if create_pr else revision)
    present = {sibling.rfilename for sibling in before.siblings or ()}
    # Old files in another form, such as shards, would be read with the new ones.
    old = [name for name in sorted(present) if any_of(name, stale) and name not in files]
    operations: list[Any] = [CommitOperationDelete(path_in_repo=name) for name in old]
    operations += [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in files.items()]
    done = api.create_commit(
        repo_id,
        operations,
        repo_type=kind,
        commit_message=commit.message or "Publish with usdrl_hub",
        revision=revision,
        create_pr=create_pr,
    )
    return done.pr_url or done.commit_url, done.oid != before.sha


def _reason(api: HfApi, repo_id: str, kind: str, error: Exception) -> str:
    """Why nothing was published, and what to do."""
    if isinstance(error, PublishError):
        return str(error)
    if isinstance(error, OfflineModeIsEnabled):
        return f"{repo_id}: offline mode is on (HF_HUB_OFFLINE), so nothing can be published"
    if insists_on_xet(error):
        return f"{repo_id}: {XET_ONLY}; nothing was published"
    if isinstance(error, HfHubHTTPError):
        return _refusal(repo_id, error)
    if isinstance(error, OSError) and is_xet_available() and not _has_xet(api, repo_id, kind):
        return (
            f"{repo_id}: the hub at {api.endpoint} has no Xet storage, where the client sends large files; nothing "
            "was published: set HF_HUB_DISABLE_XET=1, which sends them by git-lfs"
        )
    # Errors of the client's transport depend on its HTTP library.
    reason = without_token(error) or type(error).__name__
    return f"{repo_id}: the hub could not be reached or hung up ({reason}); nothing was published: try again"


def _has_xet(api: HfApi, repo_id: str, kind: str) -> bool:
    """Whether the hub gives tokens for Xet; True if unknown."""
    address = f"{api.endpoint}/api/{kind}s/{repo_id}/xet-write-token/main"
    try:
        answer = get_session().get(address, headers=build_hf_headers(token=api.token))
    except Exception:
        return True
    return answer.status_code != 404


def without_token(error: BaseException) -> str:
    """An error's text in one line, without what looks like a token."""
    return TOKEN.sub("(token)", " ".join(str(error).split()))[:300]


def _refusal(repo_id: str, error: HfHubHTTPError) -> str:
    """Why the hub refused, and what to do."""
    status = error.response.status_code if error.response is not None else 0
    owner = repo_id.partition("/")[0]
    if status == 401:
        return f"{repo_id}: the hub does not know you: run 'hf auth login' or set HFTOKEN to a token that may write"
    if status in (403, 404):
        return (
            f"{repo_id}: you may not write there: use a token with write access to '{owner}', or publish under a name "
            "of your own (--namespace, or USDRL_NAMESPACE)"
        )
    if status == 429:
        return f"{repo_id}: the hub asks to slow down; nothing was published: try again in some minutes"
    return f"{repo_id}: the hub refused ({without_token(error)}); nothing was published"
