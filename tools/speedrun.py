"""How soon the reference's row is passed: a training that is made for it, three times a size.

    python tools/speedrun.py [--only 16 4 2 run] [--seeds 3]

All four loss terms are on. Against the usual recipe three things differ: the schedule is as long as
the training and falls to zero at its end; LPIPS and R1 count on every eighth step; and the
discriminator joins for the last third. Nothing is measured on the way. The row is passed if, at the
end, MSE, SSIM and PSNR of all 10,000 test digits are better. Seconds are those of training: start,
evaluation and pictures come on top. "run" is what `make run` trains, from its start to its end.
"""

import argparse
import shutil
import statistics
import time
from functools import partial

from common import RUNS, Part, keep_row, row, run
from models import REFERENCE_SECONDS, SHIPPED_BETA, beats_reference

from vae_show.showcase import REFERENCE
from vae_store.folder import read_metrics

IMAGES = {16: 30_000, 4: 30_000, 2: 32_000}
FLAGS = (
    "--epochs 1 --lazy 8 --adversarial-start 0.7 "
    "--early-evaluations 0 --frames 1 --projected-images 10 --lpips-images 0"
)
SEEDS, RUN = 3, "run"
ORIGIN = "hardware", "threads", "torch", "commit"
SECONDS = 120  # of one, with its evaluation
WIDTHS = 5, 9, 18, 14, 18, 18, 16, 10  # of the table's columns, in characters


def flags(size: int, seed: int) -> str:
    """Of a training's `python -m vae train`."""
    made_for_it = f"--latent-size {size} --beta {SHIPPED_BETA[size]} {FLAGS}"
    return f"{made_for_it} --max-train-images {IMAGES[size]} --seed {seed}"


def measure(size: int, seeds: int = SEEDS) -> dict:
    """Train a size with each seed: a row of `assets/speedrun.json`."""
    found = []
    for seed in range(seeds):
        folder = RUNS / "speedrun" / f"{size}_{seed}"
        shutil.rmtree(folder, ignore_errors=True)  # a time is measured anew, or it is none
        run(f"python -m vae train {flags(size, seed)} --run-dir {folder}")
        found.append(read_metrics(folder))
    samples = [metrics["test"]["sample"] for metrics in found]
    last = found[-1]["environment"]
    return {
        "command": f"python -m vae train {flags(size, 0)}",
        "images": IMAGES[size],
        "seconds": [metrics["seconds"]["training"] for metrics in found],
        "peak_memory_mb": max(metrics["peak_memory_mb"] for metrics in found),
        **{name: [sample[name] for sample in samples] for name in ("mse", "ssim", "psnr")},
        "kl": [metrics["test"]["kl"] for metrics in found],
        "passed": [beats_reference(size, sample) for sample in samples],
        **{key: last[key] for key in ORIGIN},
    }


def measure_run() -> dict:
    """Train as `make run` does, from an installed environment: a row of `assets/speedrun.json`."""
    folder, command = RUNS / "speedrun" / "run", "python -m vae train --latent-size 2"
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    run(f"{command} --run-dir {folder}")
    seconds, metrics = time.perf_counter() - started, read_metrics(folder)
    training, test = metrics["seconds"]["training"], metrics["test"]
    return {
        "command": command, "seconds": seconds, "training": training, "share": training / seconds,
        "peak_memory_mb": metrics["peak_memory_mb"], "mse": test["sample"]["mse"], "kl": test["kl"],
        **{key: metrics["environment"][key] for key in ORIGIN},
    }  # fmt: skip


def keep_measured(what: int | str, seeds: int = SEEDS) -> None:
    """Measure a size, or RUN, and write its row."""
    keep_row(f"speedrun/{what}", measure_run() if what == RUN else measure(what, seeds))


def parts() -> list[Part]:
    """The three trainings of each size, and `make run`."""
    return [
        Part("measure", name := f"speedrun/{what}", SECONDS * (1 if what == RUN else SEEDS),
             done=lambda name=name: bool(row(name)), make=partial(keep_measured, what))
        for what in (*REFERENCE, RUN)
    ]  # fmt: skip


def table() -> list[list[str]]:
    """A row for each size: the median of the seconds, and of each number the worst."""
    found = []
    for size, (mse, ssim, psnr) in REFERENCE.items():
        if kept := row(f"speedrun/{size}"):
            seconds = statistics.median(kept["seconds"])
            found.append([
                f"{size}", f"{kept['images']:,}",
                f"{seconds:.0f} ({min(kept['seconds']):.0f} to {max(kept['seconds']):.0f})",
                f"{REFERENCE_SECONDS / seconds:.0f}", f"{max(kept['mse']):.5f} ({mse:.4f})",
                f"{min(kept['ssim']):.4f} ({ssim:.4f})", f"{min(kept['psnr']):.2f} ({psnr:.2f})",
                f"{statistics.mean(kept['kl']):.0f}",
            ])  # fmt: skip
    return found


def print_table() -> None:
    """The same on a terminal, with the machine."""
    header = ["size", "images", "seconds", "times faster", "MSE", "SSIM", "PSNR, dB", "KL, nats"]
    for cells in [header, *table()]:
        print("".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True)))
    for what in (*REFERENCE, RUN):
        if kept := row(f"speedrun/{what}"):
            print(f"{what}: {kept['hardware']}, {kept['threads']} threads, "
                  f"torch {kept['torch']}, at most {kept['peak_memory_mb']:,.0f} MiB")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=[*map(str, REFERENCE), RUN], metavar="SIZE",
                        help="these sizes alone, or `run`")  # fmt: skip
    parser.add_argument("--seeds", type=int, default=SEEDS, help="trainings of each size")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error(f"--seeds {options.seeds}: 1 or more")
    for what in options.only or [*REFERENCE, RUN]:
        keep_measured(what if what == RUN else int(what), options.seeds)
    print_table()
    if kept := row(f"speedrun/{RUN}"):
        print(f"`make run`: {kept['seconds']:.0f} s, {kept['share']:.0%} of them training; "
              f"MSE {kept['mse']:.4f}, KL {kept['kl']:.0f} nats")  # fmt: skip
    missed = [size for size in REFERENCE if not all(row(f"speedrun/{size}").get("passed", [True]))]
    if missed:
        raise SystemExit(f"size {missed}: not every training passed the reference's row")


if __name__ == "__main__":
    main()
