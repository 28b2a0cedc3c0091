"""What can go wrong, and which of Python's own exceptions is it?

Every message is one line that names the file, tensor, model or key, and the way out. The compiled
module looks these classes up by name, so a rename here is a rename there.
"""

from __future__ import annotations


class MergecoreError(Exception):
    """Anything that mergecore says went wrong; `exit_status` is what the command line exits with.

    Two is a wrong request, found before the first byte of output is written; one is a failure
    while running.
    """

    exit_status: int = 1


class RecipeError(MergecoreError, ValueError):
    """The request is wrong: an unknown method, key or parameter, or a value out of its range."""

    exit_status = 2


class ModelError(MergecoreError, ValueError):
    """A model is malformed, or does not fit the others."""

    exit_status = 2


class ModelNotFoundError(MergecoreError, FileNotFoundError):
    """A model is neither on this machine nor to be had from the hub."""

    exit_status = 2


class OutputExistsError(MergecoreError, FileExistsError):
    """The output is there already, or is an input."""

    exit_status = 2


class SpaceError(MergecoreError, OSError):
    """The disk or the memory allowed is too small; found before the start."""

    exit_status = 2


class RunError(MergecoreError, OSError):
    """A merge failed while running: an input changed, a read or a write failed."""

    exit_status = 1
