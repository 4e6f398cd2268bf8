"""Train, measure and draw all that `assets/` shows, the most important first.

    python tools/results.py [--only latent_2 generation ...]

A part that is there is not made again, so that this can be cut off and started anew. `--list` says
what is there and the command of each part, and makes nothing.
"""

import argparse
import shlex

import explorer_models
import measures
import peers
import pictures
import speedrun
import trainings
from common import Part

MODULES = trainings, speedrun, measures, peers, pictures, explorer_models


def all_parts() -> list[Part]:
    """Every part, in the order in which they are made."""
    return [part for module in MODULES for part in module.parts()]


def main(arguments: list[str] | None = None) -> None:
    parts = all_parts()
    names = {name for part in parts for name in (part.name, part.name.partition("/")[0])}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=sorted(names), metavar="NAME", default=names,
                        help="these parts, or groups such as `ablation` or `picture`")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print the parts, and stop")
    options = parser.parse_args(arguments)
    parts = [p for p in parts if {p.name, p.name.partition("/")[0]} & set(options.only)]
    missing = sum(not part.done() for part in parts)
    print(f"{len(parts)} parts, {missing} of them missing", flush=True)
    for number, part in enumerate(parts, 1):
        there = part.done()  # asked anew: a part that was made can put a later one out of date
        if options.list:
            command = part.command or f"python tools/results.py --only {shlex.quote(part.name)}"
            print(f"{part.name}: {'there' if there else 'missing'}\n    {command}")
        elif not there:
            print(f"[{number}/{len(parts)}] {part.name}", flush=True)
            part.make()


if __name__ == "__main__":
    main()
