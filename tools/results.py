"""Train, measure and draw all that `assets/` shows, the most important first.

    python tools/results.py [--only latent_2 generation ...]

A part that is there is not made again, so that this can be cut off and started anew. `--list` says
what is there, the seconds that a part took where they are recorded, and the command of each part,
and makes nothing.
"""

import argparse
import shlex

import explorer_models
import measures
import peers
import pictures
import speedrun
import trainings
from common import ASSETS, Part, read_json, row

from vae.machinery.folder import METRICS_NAME

MODULES = trainings, speedrun, measures, peers, pictures, explorer_models


def all_parts() -> list[Part]:
    """Every part, in the order in which they are made."""
    return [part for module in MODULES for part in module.parts()]


def recorded_seconds(name: str) -> float | None:
    """The seconds that a part took, on the machine that made it."""
    found = (row(name) or read_json(ASSETS / name / METRICS_NAME)).get("seconds")
    if isinstance(found, dict):
        return found["all"]
    return sum(found) if isinstance(found, list) else found


def print_plan(parts: list[Part]) -> None:
    """Each part, with its command."""
    for part in parts:
        seconds = recorded_seconds(part.name)
        took = "" if seconds is None else f", {seconds:.0f} s"
        print(f"{part.name}: {'there' if part.done() else 'missing'}{took}")
        command = f"python tools/results.py --only {shlex.quote(part.name)}"
        print(f"    {part.command or command}")


def main(arguments: list[str] | None = None) -> None:
    parts = all_parts()
    names = {name for part in parts for name in (part.name, part.name.partition("/")[0])}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(names), metavar="NAME",
                        help="these parts, or groups such as `ablation` or `picture`")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the parts, and stop")
    options = parser.parse_args(arguments)
    if options.only:
        parts = [p for p in parts if {p.name, p.name.partition("/")[0]} & set(options.only)]
    if options.list:
        print_plan(parts)
    missing = sum(not part.done() for part in parts)
    print(f"{len(parts)} parts, {missing} of them missing", flush=True)
    for number, part in enumerate([] if options.list else parts):
        if not part.done():  # asked anew: a part that was made can put a later one out of date
            print(f"[{number + 1}/{len(parts)}] {part.name}", flush=True)
            part.make()


if __name__ == "__main__":
    main()
