"""What a target of the fuzzing is."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One thing that takes bytes from outside.

    `run` comes back, whatever the bytes are. The errors that the project has for bad input are part
    of that; any other is a bug and passes through.
    """

    name: str
    corpus: tuple[bytes, ...]
    """Input to begin from: valid, or wrong in a way that chance would not find."""
    run: Callable[[bytes], None]
    is_slow: bool = False
    """Whether one takes milliseconds rather than microseconds."""


def allow(read: Callable[[bytes], object], allowed: type[Exception], data: bytes) -> None:
    """Read `data`; an error of the allowed kind must be a sentence that can be sent and logged."""
    try:
        read(data)
    except allowed as error:
        assert str(error).encode().strip(), f"{type(error).__name__} says nothing"
