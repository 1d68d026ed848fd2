"""Results of simulated studies on disk, so that a finer grid does not begin anew."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scld.errors import RequestError
from scld.io.atomic import atomic_write

if TYPE_CHECKING:
    from scld.synthesizer import Synthesizer


@dataclass(frozen=True)
class Cache:
    """A folder with one JSON file per result, named by the hash of what it depends on.

    Parameters
    ----------
    folder
        Made if it is not there; None: nothing is kept.

    Examples
    --------
    >>> Cache(None).get({"study": 1}, lambda: {"found": 3})
    {'found': 3}
    """

    folder: Path | None

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            seen = f"cannot be a folder ({error.strerror})"
            raise RequestError(f"cache: {self.folder}: {seen}; choose another path") from error

    def get(self, key: Mapping[str, Any], compute: Callable[[], Any]) -> Any:
        """The result for this key, computed if it is not there; JSON values in both cases."""
        text = json.dumps(key, sort_keys=True)
        if self.folder is None:
            return json.loads(json.dumps(compute()))
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"
        known = _read(path)
        if known is not None and known.get("key") == json.loads(text):
            return known["result"]
        result = json.loads(json.dumps(compute()))
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps({"key": key, "result": result}), encoding="utf-8")
        return result


def _read(path: Path) -> dict[str, Any] | None:
    """What the file holds; None if it is missing or damaged, so that it is computed again."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return values if isinstance(values, dict) and "result" in values else None


def digest(synth: Synthesizer) -> str:
    """A hash of the checkpoint that this model would be saved as."""
    found = hashlib.sha256()
    with tempfile.TemporaryDirectory(prefix="scld-") as folder:
        path = Path(folder) / "model.scld"
        synth.save(path)
        for file in sorted(path.iterdir()):
            found.update(file.name.encode() + file.read_bytes())
    return found.hexdigest()[:32]
