"""What is said of a wrong value in more than one place."""

from typing import Any, Final

KEY_BYTES: Final = 512
"""The longest key, in UTF-8."""


def whole(value: Any, name: str) -> int:
    """The value; `ValueError` unless it is a whole number of 1 or more."""
    if type(value) is not int or value < 1:
        raise ValueError(f"{name} must be a whole number of 1 or more, not {value!r}")
    return value


def checked_key(key: Any, what: str = "key") -> str:
    """The key as given; `TypeError` or `ValueError` where a journal could not hold it."""
    if not isinstance(key, str):
        raise TypeError(f"{what} must be a str, not {type(key).__name__}")
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{what} has a lone surrogate, which is not valid text") from None
    if not 1 <= size <= KEY_BYTES:
        raise ValueError(f"{what} must have 1 to {KEY_BYTES} bytes of UTF-8, not {size}")
    if "\0" in key:
        raise ValueError(f"{what} must not have a NUL character")
    return key
