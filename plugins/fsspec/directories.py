"""What reading a directory gives, an error mostly: remembered for each call, and given again without the origin."""

from typing import Any

from jcache.errors import OfflineMissError
from jcache.session import current
from jcache_plugins.fsspec.access import Access
from jcache_plugins.fsspec.answers import UNKNOWN, NoFile, Question, question

__all__ = ["OPENED", "Reading", "given_again"]

Span = tuple[int | None, int | None]

# Instead of bounds, for a call that opens the directory. What that gave is an error, or that it was opened.
OPENED: Span = (-1, -1)


class Reading:
    """One call that reads names: what it gives of a directory is remembered."""

    __slots__ = ("_epoch",)

    def __init__(self) -> None:
        """Begin: a change from here on makes what the call gives out of date."""
        session = current()
        self._epoch = None if session is None else session.answers.epoch

    def gave(self, found: Access | None, span: Span, result: object) -> None:
        """Have recorded what the call gave, where the name turned out to be a directory.

        Args:
            found: The name; None where it cannot be told which object is meant.
            span: The bounds of what was read, or `OPENED`.
            result: What was returned, or the exception that was raised.
        """
        if found is None or self._epoch is None or not found.origin.is_directory:
            return
        if isinstance(result, OSError):
            is_said = type(result).__module__ == "builtins" and found.origin.retry_after(result, met=True) is None
            told: object = NoFile(result) if is_said else None  # else nobody has answered
        else:
            told = result if result is True or (isinstance(result, bytes) and not result) else None
        ask = None if told is None else _question(found, span)
        if ask is not None:
            ask.epoch = self._epoch
            ask.note(told)


async def given_again(found: Access, span: Span, error: OfflineMissError) -> Any:
    """Return what a call gave for a directory before, which may be an exception; the error where nothing is known."""
    ask = _question(found, span)
    if ask is None or not ask.is_offline or await found.is_known():
        return error  # what is recorded of a file says that it is one
    try:
        told = await ask.known_soon()
    except OSError as remembered:
        return remembered
    return error if told is UNKNOWN else told


def _question(found: Access, span: Span) -> Question | None:
    if found.directory is not None:
        return None
    options = {"start": span[0], "end": span[1]}
    return question("read a directory", found.origin.path, options, (found.identity, found.terms))
