"""Settings that explain and check themselves: dataclass fields with a help text and limits."""

import dataclasses
import types
import typing


def option(default, help: str, low=None, high=None, choices: tuple = ()):
    """A dataclass field: what it is, its lowest and highest value, or the values it can have.

    `check_options` holds values to the limits, and the command line makes a flag of the field.
    """
    limits = {"help": help, "low": low, "high": high, "choices": choices}
    return dataclasses.field(default=default, metadata=limits)


def options_of(config: type) -> list[tuple[dataclasses.Field, type, bool, bool]]:
    """(field, type, may be None, is a tuple) of each option of a dataclass."""
    found = []
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if "help" in field.metadata:
            kind = hints[field.name]
            optional = isinstance(kind, types.UnionType)  # int | None
            several = typing.get_origin(kind) is tuple  # tuple[int, ...]
            kind = typing.get_args(kind)[0] if optional or several else kind
            found.append((field, kind, optional, several))
    return found


def check_options(config) -> None:
    """Raise `ValueError`, naming setting, value and what is allowed, for the first bad value."""
    for field, kind, optional, several in options_of(type(config)):
        value = getattr(config, field.name)
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        if optional and value is None:
            continue
        for one in value if several else (value,):
            accepted = (int, float) if kind is float else kind
            valid = isinstance(one, accepted) and (kind is bool or not isinstance(one, bool))
            valid = valid and (not choices or one in choices)
            valid = valid and (low is None or one >= low) and (high is None or one <= high)
            if not valid:
                limits = f"one of {choices}" if choices else kind.__name__
                limits += f", at least {low}" if low is not None else ""
                limits += f", at most {high}" if high is not None else ""
                raise ValueError(f"{field.name}={value!r} is not allowed: {limits}")
