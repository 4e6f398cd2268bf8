"""Settings that explain and check themselves: dataclass fields with a help text and limits."""

import dataclasses
import numbers
import operator
import os
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
    """Give each option of a frozen dataclass its own type: NumPy's numbers, paths and lists too.

    Raises `ValueError`, naming setting, value and what is allowed, for the first bad value.
    """
    for field, kind, optional, several in options_of(type(config)):
        value = getattr(config, field.name)
        if optional and value is None:
            continue
        low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
        try:
            checked = tuple(_as(kind, one) for one in (value if several else (value,)))
            valid = all(
                (not choices or one in choices)
                and (low is None or one >= low)
                and (high is None or one <= high)
                for one in checked
            )
        except TypeError:
            valid = False
        if not valid:
            limits = f"one of {choices}" if choices else kind.__name__
            limits += f", at least {low}" if low is not None else ""
            limits += f", at most {high}" if high is not None else ""
            raise ValueError(f"{field.name}={value!r} is not allowed: {limits}")
        object.__setattr__(config, field.name, checked if several else checked[0])


def _as(kind: type, value: object) -> object:
    """`value` as a bool, int, float or str; `TypeError` for what is not one already."""
    if kind is bool or isinstance(value, bool):
        if kind is bool and isinstance(value, bool):
            return value
        raise TypeError
    if kind is int:
        return operator.index(value)
    if kind is float and isinstance(value, numbers.Real):
        return float(value)
    if kind is str:
        return os.fspath(value)
    raise TypeError


def from_saved(config: type, saved: dict):
    """The config that was saved as a dict. Raises `TypeError` or `ValueError` for a wrong one."""
    unknown = set(saved) - {field.name for field in dataclasses.fields(config)}
    if unknown:
        raise ValueError(f"unknown settings {sorted(unknown)}")
    return config(**saved)


def check_same_settings(
    saved: dict, config, place: str, remedy: str = "name another folder, or delete it"
) -> None:
    """Raise `ValueError`, listing the differences, unless `saved` is the dict of `config`.

    `place`: the argument and its value, such as "run_dir=runs/latent_2".
    """
    differences = config_differences(saved, config)
    if differences:
        raise ValueError(f"{place} has other settings ({'; '.join(differences)}): {remedy}")


def config_differences(saved: dict, config) -> list[str]:
    """Each setting in which a saved config, as a dict, differs from `config`, in words.

    Equal numbers are equal settings, and a setting that did not exist when `saved` was written
    counts as its default.
    """

    def flat(settings: dict) -> dict:
        settings = settings | settings.get("model", {})
        lists = {name: list(value) for name, value in settings.items() if type(value) is tuple}
        return settings | lists  # which JSON makes of tuples

    wanted = flat(dataclasses.asdict(config))
    saved = flat(dataclasses.asdict(type(config)())) | flat(saved)
    return [
        f"{name} {saved[name]!r} there, {value!r} here"
        for name, value in wanted.items()
        if name != "model" and saved[name] != value
    ]
