"""What can go wrong, for the person who can mend it.

    SCLDError                   catch this to catch everything of ours
    └── DataError               something handed in cannot be used as it is (also a ValueError)
        ├── RequestError        what was asked for: n, where, obs, guidance, a setting, an output path
        └── CheckpointError     a checkpoint directory that is missing, damaged or of another format

Every message is one line: the place, the value seen, the values allowed, the next step. The command line prints it
and exits with 2.
"""


class SCLDError(Exception):
    """The root of every error that scld raises on purpose."""


class DataError(SCLDError, ValueError):
    """Something handed in cannot be used: counts, labels, genes, a file."""


class RequestError(DataError):
    """What was asked for cannot be done: ``n``, ``where``, ``obs``, a setting, an output path."""


class CheckpointError(DataError):
    """A checkpoint directory is missing, damaged, or written in another format."""
