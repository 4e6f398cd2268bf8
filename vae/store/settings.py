"""Settings that explain and check themselves: dataclass fields with a help text and limits."""

import numbers
import operator
import os
from dataclasses import Field, asdict, field, fields


def option(default, help: str, low=None, high=None, choices: tuple = (), kind: type | None = None):
    """A dataclass field: what it is, its lowest and highest value, or the values it can have.

    Its type is that of `default`, or of what a tuple holds; `kind`, where the default is None.
    """
    of = type(default[0] if isinstance(default, tuple) else default)
    limits = {"help": help, "low": low, "high": high, "choices": choices, "kind": kind or of}
    return field(default=default, metadata=limits)


def options_of(config: type) -> list[Field]:
    """The options of a dataclass."""
    return [one for one in fields(config) if "help" in one.metadata]


def check_options(config) -> None:
    """Give each option of a frozen dataclass its own type: NumPy's numbers, paths and lists too.

    Raises `ValueError`, naming setting, value and what is allowed, for the first bad value.
    """
    for one in options_of(type(config)):
        value, about = getattr(config, one.name), one.metadata
        if value is None and one.default is None:
            continue
        low, high, choices, kind = (about[key] for key in ("low", "high", "choices", "kind"))
        several = isinstance(one.default, tuple)
        try:
            checked = tuple(_as(kind, part) for part in (value if several else (value,)))
            if not all(
                (not choices or part in choices)
                and (low is None or part >= low)
                and (high is None or part <= high)
                for part in checked
            ):
                raise TypeError
        except TypeError:
            limits = f"one of {choices}" if choices else kind.__name__
            limits += f", at least {low}" if low is not None else ""
            limits += f", at most {high}" if high is not None else ""
            raise ValueError(f"{one.name}={value!r} is not allowed: {limits}") from None
        object.__setattr__(config, one.name, checked if several else checked[0])


def _as(kind: type, value: object) -> object:
    """`value` as a bool, int, float or str; `TypeError` for what is not one already."""
    if kind is int and not isinstance(value, bool):
        return operator.index(value)
    if kind is float and isinstance(value, numbers.Real) and not isinstance(value, bool):
        return float(value)
    if kind is str:
        return os.fspath(value)
    if kind is bool and isinstance(value, bool):
        return value
    raise TypeError


def from_saved(config: type, saved: dict):
    """The config that was saved as a dict. Raises `TypeError` or `ValueError` for a wrong one."""
    unknown = set(saved) - {one.name for one in fields(config)}
    if unknown:
        raise ValueError(f"unknown settings {sorted(unknown)}")
    return config(**saved)


def config_differences(saved: dict, config) -> list[str]:
    """Each setting in which a saved config, as a dict, differs from `config`, in words.

    Equal numbers are equal settings. One that did not exist then counts as its default.
    """

    def flat(settings: dict) -> dict:
        settings = settings | settings.get("model", {})  # and lists, which JSON makes of tuples
        return {k: list(v) if isinstance(v, tuple) else v for k, v in settings.items()}

    wanted, saved = flat(asdict(config)), flat(asdict(type(config)())) | flat(saved)
    return [
        f"{name} {saved[name]!r} there, {value!r} here"
        for name, value in wanted.items()
        if name != "model" and saved[name] != value
    ]


def check_same_settings(
    saved: dict, config, place: str, remedy: str = "name another folder, or delete it"
) -> None:
    """Raise `ValueError`, listing the differences, unless `saved` is the dict of `config`.

    `place`: the argument and its value, such as "run_dir=runs/latent_2".
    """
    differences = config_differences(saved, config)
    if differences:
        raise ValueError(f"{place} has other settings ({'; '.join(differences)}): {remedy}")
