"""Train, measure and draw all that `assets/` shows, the most important first.

    python tools/results.py [--only latent_2 generation ...]

A part that is there is not made again, so that this can be cut off and started anew. `--list` says
what is there, about how long the rest takes, and the command of each part, and makes nothing.
"""

import argparse
import time
from datetime import timedelta

import autoencoder
import comparisons
import explorer_models
import generation
import likelihood
import models
import peer_rows
import seeds
import speedrun
import terms
from common import Part, slowness

MODULES = (
    models, comparisons, generation, terms, autoencoder, seeds, speedrun, likelihood, peer_rows,
    explorer_models,
)  # fmt: skip
ORDER = ("train", "sharpen", "train a prior", "measure", "compare", "draw", "list")


def all_parts() -> list[Part]:
    """Every part, in the order in which they are made."""
    found = [part for module in MODULES for part in module.parts()]
    return sorted(found, key=lambda part: ORDER.index(part.kind))


def clock(seconds: float) -> str:
    """Hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


def print_plan(parts: list[Part], slow: float, commands: bool) -> None:
    """What is there, and about how long each part takes on a machine that is so `slow`."""
    print(f"{'part':<38}{'there':>7}{'about':>10}")
    for part in parts:
        print(f"{part.name:<38}{'yes' if part.done() else 'no':>7}{clock(part.seconds * slow):>10}")
        if commands:
            print(f"    {part.command}")
    missing = [part for part in parts if not part.done()]
    whole, rest = (clock(sum(p.seconds for p in some) * slow) for some in (parts, missing))
    print(f"{len(parts)} parts take about {whole} here; {len(missing)} are missing: {rest}",
          flush=True)  # fmt: skip


def make(parts: list[Part], slow: float) -> None:
    """Make what is missing, saying before each part how far this is."""
    started = time.perf_counter()
    for number, part in enumerate(parts):
        if part.done():  # asked anew: a part that was made can put a later one out of date
            continue
        left = sum(other.seconds for other in parts[number:] if not other.done()) * slow
        print(f"[{number + 1}/{len(parts)}] {part.name}: {clock(time.perf_counter() - started)} "
              f"so far, about {clock(left)} left", flush=True)  # fmt: skip
        part.make()


def main(arguments: list[str] | None = None) -> None:
    parts = all_parts()
    names = {name: None for part in parts for name in (part.group, part.name)}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(names), metavar="NAME",
                        help="these parts, or groups such as `ablation` or `picture`")  # fmt: skip
    parser.add_argument("--list", action="store_true", help="print plan and commands, and stop")
    options = parser.parse_args(arguments)
    if options.only:
        parts = [part for part in parts if {part.group, part.name} & set(options.only)]
    slow = slowness()
    print_plan(parts, slow, options.list)
    if not options.list:
        make(parts, slow)


if __name__ == "__main__":
    main()
