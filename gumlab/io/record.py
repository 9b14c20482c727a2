"""The record of a saved folder: the checksums of its files, which loading compares."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gumlab.errors import GumlabError

RECORD = "gumlab.json"  # {"sha256": {a file's name: its checksum}}
CARD = "README.md"  # anyone may edit it, so it has no checksum


def checksum(path: Path) -> str:
    """SHA-256 of a file in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 in hex, by file name, of every file in a folder but the record and the card."""
    digests = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name not in (RECORD, CARD):
            digests[path.relative_to(folder).as_posix()] = checksum(path)
    return digests


def write_record(folder: Path) -> None:
    """Write the checksums of a folder's files into it, when all the others are there."""
    text = json.dumps({"sha256": checksums(folder)}, indent=2)
    (folder / RECORD).write_text(text + "\n", encoding="utf-8")


def verify(folder: Path) -> bool:
    """Compare a folder's files with its record.

    Parameters
    ----------
    folder : Path

    Returns
    -------
    bool
        True if every file is as `save` wrote it; False for a folder without a record, as other
        tools write it.

    Raises
    ------
    GumlabError
        If files were changed, lost or damaged since, naming them, or if they cannot be read.
    """
    try:
        recorded = json.loads((folder / RECORD).read_text(encoding="utf-8"))["sha256"]
        present = checksums(folder)
        changed = [name for name, digest in recorded.items() if present.get(name) != digest]
    except FileNotFoundError:
        return False
    except OSError as error:
        raise GumlabError(f"{folder} cannot be read: {error}. Make its files readable.") from error
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise GumlabError(f"{folder / RECORD} is damaged. Copy the folder again.") from error
    if changed:
        raise GumlabError(
            f"{folder} is not as gumlab.save wrote it: the checksums in {RECORD} do not fit "
            f"{', '.join(sorted(changed))}. Copy the folder again; or, if the change was meant "
            f"(another tool saved here, a setting was edited), delete {RECORD}."
        )
    return True
