"""A folder of files with checksums: what was written is read, or an error says what differs."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SUMS = "SHA256SUMS"
_SUM = re.compile("(?P<sum>[0-9a-f]{64})  (?P<name>.+)")
_LARGEST = 2**33  # bytes of a file


def seal(folder: Path) -> None:
    """Write the checksums of all files, as ``sha256sum -c SHA256SUMS`` reads them."""
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != SUMS)
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" for file in files]
    (folder / SUMS).write_text("\n".join(lines) + "\n")


@dataclass(frozen=True)
class SealedFolder:
    """The files of an open folder, each with the checksum that it must have.

    Parameters
    ----------
    descriptor
        Of the folder, so that all files are of one, also if another takes its place meanwhile.
    sums
        Checksum of each file; None if the folder has none.
    """

    descriptor: int
    sums: dict[str, str] | None = None

    @classmethod
    @contextmanager
    def opened(cls, path: Path) -> Iterator[SealedFolder]:
        """Open a folder; ``ValueError`` if its list of checksums is damaged."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            folder = cls(descriptor)
            has_sums = SUMS in os.listdir(descriptor)
            yield cls(descriptor, _sums(folder.content(SUMS))) if has_sums else folder
        finally:
            os.close(descriptor)

    def content(self, name: str) -> bytes:
        """The bytes of a file; ``ValueError`` if they are not those that were written."""
        try:
            content = self._bytes(name)
        except FileNotFoundError as error:
            raise ValueError(f"{name} is missing") from error
        except OSError as error:
            raise ValueError(str(error)) from error
        if self.sums is not None and hashlib.sha256(content).hexdigest() != self.sums.get(name):
            raise ValueError(f"{name} does not have its checksum")
        return content

    def _bytes(self, name: str) -> bytes:
        # a pipe would be waited for
        file = os.open(name, os.O_RDONLY | os.O_NONBLOCK, dir_fd=self.descriptor)
        with open(file, "rb") as opened:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode):
                raise ValueError(f"{name} is not a plain file")
            if about.st_size > _LARGEST:
                raise ValueError(f"{name} has more than {_LARGEST:,} bytes")
            return opened.read()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON object; ``ValueError`` if it is none."""
        content = self.content(name)
        try:
            values = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{name} is not readable JSON") from error
        if not isinstance(values, dict):
            raise ValueError(f"{name} does not hold an object")
        return values


def _sums(content: bytes) -> dict[str, str]:
    text = content.decode(errors="replace")
    lines = [_SUM.fullmatch(line) for line in text.removesuffix("\n").split("\n")]
    if not all(lines) or not text.endswith("\n"):
        raise ValueError(f"{SUMS} does not hold checksums")
    return {line["name"]: line["sum"] for line in lines if line}
