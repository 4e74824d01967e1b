"""Candidates and versions: folders that are whole or absent, and versions that never change.

stage("s3://models/registry", "run-7", model_folder, documents)      candidates/run-7, in place of an older one
enter("s3://models/registry", "run-7", "snips-3fa94c01b2d4")         the same as versions/snips-3fa94c01b2d4
"""

import errno
import hashlib
import os
import re
import shutil
import uuid
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.shared.base.errors import UserError, cannot_write, did_you_mean
from llm2llm.components.shared.lineage.embedded import FOLDER_FILE
from llm2llm.components.shared.registry.records import (
    ANSWERS,
    CARD,
    FILES,
    RECORD,
    TRAINED_ON,
    D,
    Record,
    from_document,
)
from llm2llm.components.shared.storage import (
    FileEntry,
    NotThere,
    create_bytes,
    join,
    list_objects,
    list_uris,
    read_bytes,
    s3,
    upload_folder,
    verify_folder,
)
from llm2llm.components.shared.storage.folders import MANIFEST, parse_manifest
from llm2llm.components.shared.storage.model_cache import PICKLES
from llm2llm.components.shared.storage.uris import S3Name, parse

VERSIONS, CANDIDATES = "versions", "candidates"
OURS = (RECORD, ANSWERS, TRAINED_ON, CARD)
COPIES = 16
"""Files that are copied within the registry at once."""

_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VERSION = re.compile(r"[a-z0-9][a-z0-9-]*-[0-9a-f]{12}")


def registry_uri(registry: str) -> str:
    """A registry's address in the one form that the rest of this room takes: no `~`, no slash at its end, `s3://`.

    Raises:
        UserError: It is no place for a registry: empty, an unknown scheme.
    """
    place = parse(os.path.expanduser(registry))
    return str(place)


def candidate_uri(registry: str, run: str) -> str:
    """Where a run's best student so far is kept.

    Raises:
        UserError: The run's id cannot be a folder's name.
    """
    if not _RUN.fullmatch(run):
        raise UserError(f"run {run!r}: the id of a run holds letters, digits, dots, dashes and underscores only")
    return join(registry, CANDIDATES, run)


def version_uri(registry: str, version: str) -> str:
    """Where a version is."""
    return join(registry, VERSIONS, version)


def store_candidate(registry: str, run: str, model: Path, documents: Mapping[str, bytes]) -> str:
    """Keeps a student as its run's candidate, in place of an older one. One writer at a time: the run.

    Args:
        registry: Folder or s3:// prefix.
        run: Its id.
        model: A folder that transformers or peft load: weights in safetensors, or an adapter. Pickles stay outside.
        documents: What goes beside the weights, by file name; it takes the place of a file of that name.

    Returns:
        The name that it would have as a version.

    Raises:
        UserError: The folder holds no such model, or the registry cannot be written to.
    """
    _check_model(model)
    with TemporaryDirectory(prefix="llm2llm-candidate-") as folder:
        # Links, not copies: weights can be larger than the disk.
        for path in sorted(model.rglob("*")):
            name = path.relative_to(model)
            # Its record tells where its run's data lie, and a version may be published.
            if name.as_posix() in documents or name.as_posix() == FOLDER_FILE:
                continue
            if path.is_file() and path.suffix.lower() not in PICKLES:
                (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
                (Path(folder) / name).symlink_to(path.resolve())
        for name_, data in documents.items():
            (Path(folder) / name_).write_bytes(data)
        upload_folder(folder, candidate_uri(registry, run))
    return version_of(registry, run)


def version_of(registry: str, run: str) -> str:
    """The name that a run's candidate has as a version: its config's name and a hash of all that is in it.

    Raises:
        NotThere: The run has no candidate.
    """
    uri = candidate_uri(registry, run)
    return _name(uri, read_bytes(join(uri, MANIFEST)))


def _name(candidate: str, manifest: bytes) -> str:
    return f"{read_document(candidate, Record).name}-{hashlib.sha256(manifest).hexdigest()[:12]}"


def enter(registry: str, run: str, version: str) -> None:
    """Makes a run's candidate a version, unless it is one already.

    Any number of runs may do so with the same student at the same moment: they write the same bytes, and the manifest
    last. Nothing is fetched: a server copies by itself.

    Args:
        registry: Folder or s3:// prefix.
        run: Its id.
        version: The name that `version_of` gave when it was decided to take the candidate.

    Raises:
        UserError: The run has another candidate by now, or none; it is damaged, or cannot be copied.
    """
    source, target = candidate_uri(registry, run), version_uri(registry, version)
    if not damage(target):
        return

    def unchanged() -> bytes:
        """The candidate's manifest, which goes away before any of its files is replaced."""
        try:
            manifest = read_bytes(join(source, MANIFEST))
            if _name(source, manifest) == version:
                return manifest
        except NotThere:
            pass  # it is being replaced just now
        raise UserError(f"the candidate of run {run} is no longer {version}: look again")

    manifest = unchanged()
    if found := damage(source):
        raise UserError(f"{found}: the candidate of run {run} cannot be promoted; run its stage promote again")
    try:
        verify_folder(source)
    except UserError as problem:
        unchanged()
        place = str(problem).rpartition(": ")[0]
        raise UserError(
            f"{place}: the candidate of run {run} cannot be promoted; run its stage promote again"
        ) from None
    names = list(parse_manifest(manifest, source))
    if isinstance(parse(registry), S3Name):
        _copy_on_server(source, target, names)
        unchanged()
        create_bytes(join(target, MANIFEST), manifest)
    else:
        _copy_here(Path(source), Path(target), [*names, MANIFEST], unchanged)
    if found := damage(target):
        raise UserError(f"{found}: the folder of version {version} cannot be completed; move it away, and run again")


def damage(uri: str) -> str:
    """What is wrong with a stored folder, in words: no manifest, or none that can be read, a file missing or of another
    size; empty: nothing.

    What was changed without changing its size is found by `verify_version`, and when the folder is fetched.

    Raises:
        UserError: It cannot be told: no permission, no server.
    """
    try:
        data = read_bytes(join(uri, MANIFEST))
    except NotThere:
        return f"{uri}: is not there, or was never stored to its end"
    try:
        entries = parse_manifest(data, join(uri, MANIFEST))
    except UserError as problem:
        return str(problem)
    sizes = {stored.uri.removeprefix(f"{uri}/"): stored.size for stored in list_objects(uri)}
    for name, entry in entries.items():
        found = sizes.get(name)
        if found is None:
            return f"{join(uri, name)}: is missing"
        if found != entry.size:
            return f"{join(uri, name)}: has {found:,} bytes instead of {entry.size:,}"
    return ""


def versions(registry: str) -> list[str]:
    """The names of all whole versions, sorted.

    Raises:
        UserError: The registry cannot be listed.
    """
    return sorted(name for name in _folders(registry, VERSIONS) if _VERSION.fullmatch(name))


def candidates(registry: str) -> list[str]:
    """The runs that have a candidate, sorted.

    Raises:
        UserError: The registry cannot be listed.
    """
    return sorted(name for name in _folders(registry, CANDIDATES) if _RUN.fullmatch(name))


def find_version(registry: str, version: str) -> str:
    """The URI of a version that must be there, whole.

    Raises:
        UserError: There is none of this name (the nearest is named), or it is damaged (the file is named).
    """
    uri = version_uri(registry, version)
    if _VERSION.fullmatch(version):
        found = damage(uri)
        if not found:
            return uri
        if any(True for _ in list_uris(uri)):
            raise UserError(f"version {version} is damaged: {found}; restore it from a copy, or take another version")
    known = versions(registry)
    there = f"; there are {', '.join(known)}" if 0 < len(known) <= 10 else ""
    raise UserError(f"no version {version!r} in {registry}{did_you_mean(version, known)}{there}")


def verify_version(registry: str, version: str) -> dict[str, FileEntry]:
    """Reads every byte of a version again, and holds it against its hashes and the hash in the version's name.

    A file that has been put beside them is refused too: a loader takes an `adapter_config.json` or other weights that
    it finds. Names that begin with a dot are passed over.

    Returns:
        What its manifest says of each file.

    Raises:
        UserError: There is none of this name, or it is damaged; the file is named.
    """
    uri = find_version(registry, version)
    fix = "restore it from a copy, or take another version"
    try:
        entries = verify_folder(uri)
        name = _name(uri, read_bytes(join(uri, MANIFEST)))
    except NotThere:
        raise UserError(f"version {version} is damaged: {uri}: a file went away meanwhile; {fix}") from None
    except UserError as problem:
        raise UserError(f"version {version} is damaged: {str(problem).rpartition(': ')[0]}; {fix}") from None
    if name != version:
        raise UserError(f"version {version} is damaged: {join(uri, MANIFEST)} is that of {name}; {fix}")
    stored = (found.uri.removeprefix(f"{uri}/") for found in list_objects(uri))
    more = [one for one in stored if one not in entries and not any(part.startswith(".") for part in one.split("/"))]
    if strange := sorted(one for one in more if one != MANIFEST and not one.endswith("/")):
        raise UserError(
            f"version {version} is damaged: {join(uri, strange[0])} has been put there since it was stored; remove it"
        )
    return entries


def read_document(uri: str, kind: type[D]) -> D:
    """One of the documents of a stored version or candidate.

    Raises:
        NotThere: It has none.
        UserError: It is damaged.
    """
    where = join(uri, FILES[kind])
    return from_document(kind, read_bytes(where), where)


def _check_model(model: Path) -> None:
    if not (model / "config.json").is_file() and not (model / "adapter_config.json").is_file():
        raise UserError(f"{model}: holds no student (neither config.json nor adapter_config.json)")
    if not any(model.glob("*.safetensors")):
        raise UserError(f"{model}: holds no weights in safetensors, and no others enter the registry")


def _folders(registry: str, within: str) -> list[str]:
    """The folders with a manifest in a part of the registry."""
    root = join(registry, within)
    names = [uri.removeprefix(f"{root}/").split("/") for uri in list_uris(root)]
    return [name[0] for name in names if len(name) == 2 and name[1] == MANIFEST]


def _copy_here(source: Path, target: Path, names: Sequence[str], unchanged: Callable[[], object]) -> None:
    """Copies files, the manifest last, into a folder that appears whole, or that another process has made meanwhile.

    `unchanged` raises when the source is another by now.
    """
    partial = target.with_name(f".{target.name}.partial-{uuid.uuid4().hex}")
    try:
        for name in names:
            (partial / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, partial / name)
        unchanged()
        try:
            partial.rename(target)
        except OSError as problem:
            # A rename never takes the place of a folder in which something is.
            if problem.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            if damage(str(target)):  # such as what a removal that was cut off has left
                for name in names:
                    (target / name).parent.mkdir(parents=True, exist_ok=True)
                    os.replace(partial / name, target / name)
    except OSError as problem:
        raise cannot_write(target, problem) from problem
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy_on_server(source: str, target: str, names: Sequence[str]) -> None:
    """Has a server copy files from one of its folders to another, large ones in parts."""
    from_, to = parse(source), parse(target)
    assert isinstance(from_, S3Name), f"not on a server: {source}"
    assert isinstance(to, S3Name), f"not on a server: {target}"

    def copy(name: str) -> None:
        with s3.problems(from_.within(name)):
            found = {"Bucket": from_.bucket, "Key": from_.within(name).key}
            s3.client().copy(found, *to.within(name))

    with ThreadPoolExecutor(COPIES) as threads:
        list(threads.map(copy, names))
