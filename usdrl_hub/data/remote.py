"""Data sets on the Hugging Face Hub, by an address: ``hf://datasets/alice/my-movements``."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeGuard
from urllib.parse import parse_qsl

from huggingface_hub import constants, get_cached_repo_tree, metadata_load, snapshot_download
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    IncompleteSnapshotError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm, validate_repo_id

from ..errors import one_sentence
from ..layouts import LayoutLike
from ..lookup import XET_ONLY, hub_is_reachable, insists_on_xet
from ..sequence import SkeletonFormatError, is_rate
from .interface import SkeletonData
from .parquet import ParquetFile, ParquetStore, is_own
from .tables import list_from_tables

# A path object makes one slash of two.
_ADDRESS = re.compile(
    r"hf:/{1,2}datasets/(?P<repo_id>[^/@:?]+/[^/@:?]+)(?:@(?P<revision>[^:?]+))?(?::(?P<split>[^?]+))?(?:\?(?P<rest>.*))?"
)
_FORM = "hf://datasets/OWNER/NAME, then @REVISION, :SPLIT and ?keypoints=COLUMN&layout=LAYOUT as needed"
# Splits in the names of files, where a card names none.
_SPLITS = {"train": "train|training", "test": "test|testing|eval|evaluation", "validation": "valid|validation|val|dev"}
# What the hub says by an HTTP status, as the rest of a sentence that begins with it.
ANSWERS = {
    401: "does not know the token: log in with 'hf auth login'",
    403: "does not let you read it: ask its owner for access",
    429: "asks to slow down: try again later",
}


@dataclass(frozen=True)
class HubAddress:
    """The address of a data set on the hub.

    ``hf://datasets/OWNER/NAME``, with ``@REVISION`` for a branch, tag or commit, and ``:SPLIT`` for one of its splits,
    ``:CONFIG/SPLIT`` where it has several configurations. Of data that usdrl did not push, ``?`` and these, joined by
    ``&``, say what the columns are: ``keypoints=COLUMN``, ``label=COLUMN``, ``layout=NAME`` and ``fps=NUMBER``.

    Attributes:
        repo_id: Owner and name.
        revision: Branch, tag or commit; main where None.
        split: A split; all where None.
        keypoints: Column of the keypoints.
        label: Column of the classes.
        layout: Joint layout of data that do not say it.
        fps: Frame rate of data that do not say it.

    Example:
        >>> from usdrl_hub.data.remote import HubAddress
        >>> HubAddress.parse("hf://datasets/alice/my-movements@v2:test").split
        'test'
    """

    repo_id: str
    revision: str | None = None
    split: str | None = None
    keypoints: str = "keypoints"
    label: str = "label"
    layout: str | None = None
    fps: float | None = None

    @classmethod
    def parse(cls, text: str | os.PathLike) -> HubAddress:
        """Read an address.

        Raises:
            SkeletonFormatError: If it is none.
        """
        found = _ADDRESS.fullmatch(os.fspath(text).replace("\\", "/"))
        if found is None:
            raise SkeletonFormatError(f"'{os.fspath(text)}' is no address of a data set: it is {_FORM}")
        fields: dict[str, Any] = {key: found[key] for key in ("repo_id", "revision", "split")}
        try:
            validate_repo_id(fields["repo_id"])
        except HFValidationError as error:
            raise SkeletonFormatError(
                f"'{fields['repo_id']}' cannot be a data set: {one_sentence(error, 150)}"
            ) from None
        for key, value in parse_qsl(found["rest"] or "", keep_blank_values=True):
            if key not in ("keypoints", "label", "layout", "fps") or not value:
                raise SkeletonFormatError(f"'{os.fspath(text)}': '{key}={value}' says nothing of it: it is {_FORM}")
            fields[key] = value
        if "fps" in fields:
            try:
                fields["fps"] = float(fields["fps"])
            except ValueError:
                fields["fps"] = 0.0
            if not is_rate(fields["fps"]):
                raise SkeletonFormatError(f"'{os.fspath(text)}': fps must be between 0.01 and 10000")
        return cls(**fields)

    def __str__(self) -> str:
        """The address without what the columns are."""
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"hf://datasets/{self.repo_id}{revision}" + ("" if self.split is None else f":{self.split}")


def is_address(source: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Whether a source is meant as an address of the hub."""
    return isinstance(source, str | os.PathLike) and os.fspath(source).replace("\\", "/").startswith("hf:/")


def open_address(
    source: str | os.PathLike | HubAddress,
    layout: LayoutLike | None = None,
    *,
    keypoints: str | None = None,
    stream: bool = False,
) -> SkeletonData:
    """Open a data set of the hub.

    Its Parquet files come into the client's cache once, and are read from there, also without a network. One that
    `usdrl push` made stays in its files; of others the columns named by the address are read into memory.

    Args:
        source: The address.
        layout: Joint layout of data that do not say it.
        keypoints: Column of the keypoints, where the address names none.
        stream: Read keypoints over the network as they are used, without a copy on disk; only data that `usdrl push`
            made.

    Raises:
        SkeletonFormatError: If it is not there, may not be read, or holds no keypoints; the message says what to do.
        ImportError: If `datasets` is not installed.
    """
    address = source if isinstance(source, HubAddress) else HubAddress.parse(source)
    if keypoints is not None:
        address = replace(address, keypoints=keypoints)
    with _sentences(address):
        found = _Repository.find(address)
        files = found.files(address)
        opened = found.streamed(files) if stream else found.downloaded(files)
    parts = [(split, file) for (split, _), file in zip(files, opened, strict=True)]
    with _sentences(address):
        if address.keypoints == "keypoints" and all(is_own(file) for file in opened):
            origin, license = str(replace(address, revision=found.commit)), found.card.get("license")
            store = ParquetStore.of_files(opened, address.repo_id)
            store = replace(store, origin=origin, license=license if isinstance(license, str) else "")
            # One split is a data set of its own, which has none.
            return store if address.split is None else store.without_split()
    if stream:
        raise SkeletonFormatError(
            f"{address}: only data sets that 'usdrl push --dataset' made can be streamed, because the lengths of the "
            "recordings are not known of others: leave --stream out"
        )
    with _sentences(address):
        return list_from_tables(
            parts,
            str(address),
            keypoints=address.keypoints,
            label=address.label,
            layout=layout or address.layout,
            fps=address.fps,
        )


def commit_of(source: str | os.PathLike) -> str:
    """An address with the commit that its revision is at, which tells whether it is the same data set as before."""
    address = HubAddress.parse(source)
    with _sentences(address):
        return str(replace(address, revision=_Repository.find(address).commit))


@dataclass(frozen=True)
class _Repository:
    """A data set repository at a commit: what its card says, and the names of its files."""

    repo_id: str
    commit: str
    card: Mapping[str, Any]
    names: Sequence[str]
    is_local: bool

    @classmethod
    def find(cls, address: HubAddress) -> _Repository:
        # The client would retry for half a minute before it looks into its cache.
        is_local = not hub_is_reachable()
        folder = _snapshot(
            address.repo_id, address.revision, ["README.md", ".gitattributes"], is_local, tqdm_class=_Quiet
        )
        tree = get_cached_repo_tree(address.repo_id, repo_type="dataset", revision=folder.name)
        card: Any = None
        try:
            card = metadata_load(folder / "README.md") if (folder / "README.md").is_file() else None
        except Exception:
            # A card that is no YAML says nothing; readers of YAML raise errors of many types.
            card = None
        names = sorted(file.path for file in tree)
        return cls(address.repo_id, folder.name, card if isinstance(card, dict) else {}, names, is_local)

    def files(self, address: HubAddress) -> list[tuple[str, str]]:
        """Split and name of each Parquet file of the splits that are meant.

        Raises:
            SkeletonFormatError: If there is none, or no such split.
        """
        names = [name for name in self.names if name.endswith(".parquet")]
        if not names:
            raise SkeletonFormatError(f"{address}: there is no Parquet file in it, so it is no data set to read")
        config, _, split = (address.split or "").rpartition("/")
        found = _configured(self.card, config, names, address) or _named(names)
        if split:
            if split not in found:
                raise SkeletonFormatError(f"{address}: there is no split '{split}', but {', '.join(found)}")
            found = {split: found[split]}
        return [(side, name) for side, files in found.items() for name in files]

    def downloaded(self, files: Sequence[tuple[str, str]]) -> list[ParquetFile]:
        names = [name for _, name in files]
        folder = _snapshot(self.repo_id, self.commit, names, self.is_local)
        return [ParquetFile.local(folder / name, f"{self.repo_id}/{name}") for name in names]

    def streamed(self, files: Sequence[tuple[str, str]]) -> list[ParquetFile]:
        return [ParquetFile(f"{self.repo_id}/{name}", _Remote(self.repo_id, self.commit, name)) for _, name in files]


@dataclass(frozen=True)
class _Remote:
    """Opens a file of the hub, of which only what is read is requested."""

    repo_id: str
    commit: str
    name: str

    def __call__(self) -> Any:
        from huggingface_hub import HfFileSystem

        # Made anew in each process, with its own connections.
        return HfFileSystem(endpoint=constants.ENDPOINT).open(
            f"datasets/{self.repo_id}@{self.commit}/{self.name}", "rb", cache_type="none"
        )


class _Quiet(tqdm):
    """No bar, for a small file."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **{**kwargs, "disable": True})


def _snapshot(
    repo_id: str, revision: str | None, names: Sequence[str], is_local: bool, tqdm_class: type[tqdm] | None = None
) -> Path:
    """Files of a repository in the client's cache, and the list of all of them."""
    patterns = [re.sub(r"([*?\[])", r"[\1]", name) for name in names]
    folder = snapshot_download(
        repo_id,
        repo_type="dataset",
        revision=revision,
        allow_patterns=patterns,
        local_files_only=is_local,
        tqdm_class=tqdm_class,
    )
    return Path(folder)


def _configured(
    card: Mapping[str, Any], config: str, names: Sequence[str], address: HubAddress
) -> dict[str, list[str]] | None:
    """Files by split as the card says, of one configuration; None where it says nothing."""
    configs = card.get("configs")
    entries = [entry for entry in configs if isinstance(entry, dict)] if isinstance(configs, list) else []
    titles = [str(entry.get("config_name", "default")) for entry in entries]
    if not entries or not any("data_files" in entry for entry in entries):
        if config:
            raise SkeletonFormatError(f"{address}: it has no configurations: leave '{config}/' out")
        return None
    if config and config not in titles:
        raise SkeletonFormatError(f"{address}: there is no configuration '{config}', but {', '.join(titles)}")
    default = next((title for entry, title in zip(entries, titles, strict=True) if entry.get("default")), "default")
    chosen = config or (titles[0] if len(titles) == 1 else default)
    if chosen not in titles:
        raise SkeletonFormatError(f"{address}: it has several configurations: name one, as :{titles[0]}/train")
    files = entries[titles.index(chosen)].get("data_files")
    parts = files if isinstance(files, list) else [files]
    found: dict[str, list[str]] = {}
    for part in parts:
        split, patterns = (part.get("split"), part.get("path")) if isinstance(part, dict) else (None, part)
        for pattern in patterns if isinstance(patterns, list) else [patterns]:
            mine = [name for name in names if fnmatchcase(name, str(pattern).replace("**/", "*").lstrip("./"))]
            found.setdefault(str(split or "train"), []).extend(mine)
    found = {split: list(dict.fromkeys(files)) for split, files in found.items() if files}
    if not found:
        raise SkeletonFormatError(f"{address}: the files that its card names are not Parquet files")
    return found


def _named(names: Sequence[str]) -> dict[str, list[str]]:
    """Files by the split in their names."""
    found: dict[str, list[str]] = {}
    for name in names:
        sides = [side for side, words in _SPLITS.items() if re.search(rf"(^|[/_.-])({words})([/_.-]|$)", name.lower())]
        found.setdefault(sides[0] if sides else "train", []).append(name)
    return found


@contextmanager
def _sentences(address: HubAddress) -> Iterator[None]:
    """Errors of the client as one sentence that says what to do, and never shows a token.

    Raises:
        SkeletonFormatError: If there is such an error.
    """
    try:
        yield
    except SkeletonFormatError:
        raise
    except (HfHubHTTPError, OSError, HFValidationError, RuntimeError) as error:
        raise SkeletonFormatError(f"{address}: {_fault(error, address)}") from None
    except Exception as error:
        # The errors of the client's transport depend on its HTTP library.
        if type(error).__module__.partition(".")[0] not in ("httpx", "httpx2", "httpcore", "httpcore2"):
            raise
        raise SkeletonFormatError(f"{address}: {_CUT}") from None


_CUT = "the connection to the hub was cut: repeat the command, which goes on where it was"


def _fault(error: BaseException, address: HubAddress) -> str:
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None and cause not in causes:
        causes.append(cause)
    gone = "it is not in the cache, and the hub is not reachable"
    if any(isinstance(cause, GatedRepoError) for cause in causes):
        page = f"{constants.ENDPOINT}/datasets/{address.repo_id}"
        return f"it is gated: ask for access on {page}, and log in with 'hf auth login'"
    if any(isinstance(cause, RevisionNotFoundError) for cause in causes):
        return f"the hub has no revision '{address.revision}' of it"
    if any(isinstance(cause, RepositoryNotFoundError) for cause in causes):
        return "the hub has no data set of this name that you may read: log in with 'hf auth login' if it is private"
    if insists_on_xet(error):
        return XET_ONLY
    statuses = [cause.response.status_code for cause in causes if isinstance(cause, HfHubHTTPError) and cause.response]
    if statuses:
        answer = ANSWERS.get(statuses[0], "failed: try again later" if statuses[0] >= 500 else "refused")
        return f"the hub {answer} (status {statuses[0]})"
    if any(isinstance(cause, IncompleteSnapshotError) for cause in causes):
        return "the cache holds a part of it, and the hub is not reachable"
    if any(isinstance(cause, LocalEntryNotFoundError | OfflineModeIsEnabled) for cause in causes):
        return gone
    if isinstance(error, OSError) and error.errno is not None:
        return f"the cache cannot be read or written: {error.strerror}"
    return _CUT
