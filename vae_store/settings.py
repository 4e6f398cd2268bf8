"""Settings that explain and check themselves: dataclass fields with a help text and limits."""

import math
import numbers
import operator
import os
from collections.abc import Callable
from dataclasses import Field, asdict, field, fields

import numpy as np

REMEDY = "name another folder, or delete it"  # where a folder has other settings


def option(default, help: str, low=None, high=None, choices: tuple = (), kind: type | None = None,
           decides: bool = True, alike: Callable = lambda value: value):  # fmt: skip
    """A dataclass field: what it is, its lowest and highest value, or the values it can have.

    Its type is that of `default`, or of what a tuple holds; `kind`, where the default is None.
    `decides`: whether the result depends on it, so that two values are two settings. `alike`: what
    of a value decides, by which two are compared.
    """
    of = type(default[0] if isinstance(default, tuple) else default)
    limits = {"help": help, "low": low, "high": high, "choices": choices, "kind": kind or of}
    limits |= {"decides": decides, "alike": alike}
    return field(default=default, metadata=limits)


def options_of(config: type) -> list[Field]:
    return [one for one in fields(config) if "help" in one.metadata]


def check_options(config) -> None:
    """Give each option of a frozen dataclass its own type; `ValueError` for a bad value."""
    for one in options_of(type(config)):
        value, about = getattr(config, one.name), one.metadata
        if value is None and one.default is None:
            continue
        low, high, choices, kind = (about[key] for key in ("low", "high", "choices", "kind"))
        several = isinstance(one.default, tuple)
        try:
            checked = tuple(_as(kind, part) for part in (value if several else (value,)))
            for part in checked:
                within = (low is None or part >= low) and (high is None or part <= high)  # no NaN
                if not within or (choices and part not in choices):
                    raise TypeError
        except (TypeError, OverflowError):
            limits = f"one of {choices}" if choices else "finite " * (kind is float) + kind.__name__
            limits += f", at least {low}" if low is not None else ""
            limits += f", at most {high}" if high is not None else ""
            raise ValueError(f"{one.name}={value!r} is not allowed: {limits}") from None
        object.__setattr__(config, one.name, checked if several else checked[0])


def check_kind(config: object, name: str, *kinds: type) -> None:
    """Raise `ValueError` unless a config, the argument `name`, is of one of these kinds."""
    if not isinstance(config, kinds):
        names = " or a ".join(kind.__name__ for kind in kinds)
        raise ValueError(f"{name}={config!r} is not allowed: a {names} is expected")


def _as(kind: type, value: object) -> object:
    """`value` as a bool, int, float or str; `TypeError` for what is not one already."""
    if kind is str and isinstance(value, str | os.PathLike):
        return os.fspath(value)
    if kind is str or isinstance(value, bool | np.bool_) != (kind is bool):
        raise TypeError
    if kind is float and not (isinstance(value, numbers.Real) and math.isfinite(value)):
        raise TypeError
    return operator.index(value) if kind is int else kind(value)


def from_saved(config: type, saved: dict):
    """The config that was saved as a dict. Raises `TypeError` or `ValueError` for a wrong one.

    What it lacks is as in the class's `before`, where it has that, or the default.
    """
    if unknown := set(saved) - {one.name for one in fields(config)}:
        raise ValueError(f"unknown settings {sorted(unknown)}")
    return config(**getattr(config, "before", {}) | saved)


def config_differences(saved: dict, config) -> list[str]:
    """Where a saved dict differs from `config`, in words; what it lacks counts as the default.

    Settings that `config` does not know do not count.
    """

    def flat(one) -> dict:
        settings = asdict(one)
        return settings | settings.get("model", {})

    known = {one.name for one in fields(config)}
    there = from_saved(type(config), {k: v for k, v in saved.items() if k in known})
    wanted, found = flat(config), flat(there)
    kinds = {type(config), type(getattr(config, "model", config))}
    options = [one for kind in kinds for one in options_of(kind)]
    ignored = {one.name for one in options if not one.metadata["decides"]}
    names = [name for name in wanted if name not in ignored | {"model"}]
    alike = {one.name: one.metadata["alike"] for one in options}
    differ = [
        name for name in names
        if found[name] != wanted[name] and alike[name](found[name]) != alike[name](wanted[name])
    ]  # fmt: skip
    return [f"{name} {found[name]!r} there, {wanted[name]!r} here" for name in differ]


def check_same_settings(saved: dict, config, place: str, remedy: str = REMEDY) -> None:
    """Raise `ValueError` for differences of `saved` from `config` in `place`, "run_dir=runs/x"."""
    if differences := config_differences(saved, config):
        raise ValueError(f"{place} has other settings ({'; '.join(differences)}): {remedy}")
