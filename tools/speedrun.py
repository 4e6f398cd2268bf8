"""How soon the reference's row is passed: a training that is made for it, three times a size.

    python tools/speedrun.py

All four loss terms are on. Against the usual recipe three things differ: the schedule is as long as
the training and falls to zero at its end; LPIPS and R1 count on every eighth step; and the
discriminator joins for the last third. Nothing is measured on the way. The row is passed if, at the
end, MSE, SSIM and PSNR of all 10,000 test digits are better. Seconds are those of training: start,
evaluation and pictures come on top. "run" is what `make run` trains, from its start to its end.
"""

import shutil
import statistics
import time
from functools import partial

from common import RUNS, Part, keep_row, row, run, table
from trainings import SHIPPED_BETA, beats_reference

from vae.machinery.folder import read_metrics
from vae.machinery.shipped import REFERENCE

IMAGES = {16: 30_000, 4: 30_000, 2: 32_000}
FLAGS = ("--epochs 1 --lazy 8 --adversarial-start 0.7 "
         "--early-evaluations 0 --frames 1 --projected-images 10 --lpips-images 0")  # fmt: skip
SEEDS = 3
ORIGIN = "hardware", "threads", "torch", "commit"


def trained(name: str, flags: str) -> tuple[dict, float]:
    """The metrics of a training that is made anew, and the seconds from its start to its end."""
    folder = RUNS / "speedrun" / name
    shutil.rmtree(folder, ignore_errors=True)
    started = time.perf_counter()
    run(f"python -m vae train {flags} --run-dir {folder}")
    return read_metrics(folder), time.perf_counter() - started


def measure(size: int) -> dict:
    """Train a size with each seed: a row of `assets/speedrun.json`."""
    flags = f"--latent-size {size} --beta {SHIPPED_BETA[size]} {FLAGS}"
    flags += f" --max-train-images {IMAGES[size]}"
    found = [trained(f"{size}_{seed}", f"{flags} --seed {seed}")[0] for seed in range(SEEDS)]
    samples = [metrics["test"]["sample"] for metrics in found]
    return {
        "command": f"python -m vae train {flags} --seed 0",
        "images": IMAGES[size],
        "seconds": [metrics["seconds"]["training"] for metrics in found],
        **{name: [sample[name] for sample in samples] for name in ("mse", "ssim", "psnr")},
        "kl": [metrics["test"]["kl"] for metrics in found],
        "passed": [beats_reference(size, sample) for sample in samples],
        **{key: found[-1]["environment"][key] for key in ORIGIN},
    }


def measure_run() -> dict:
    """Train as `make run` does, from an installed environment: a row of `assets/speedrun.json`."""
    metrics, seconds = trained("run", flags := "--latent-size 2")
    training, test = metrics["seconds"]["training"], metrics["test"]
    return {"command": f"python -m vae train {flags}",
            "seconds": seconds, "training": training, "share": training / seconds,
            "mse": test["sample"]["mse"], "kl": test["kl"],
            **{key: metrics["environment"][key] for key in ORIGIN}}  # fmt: skip


def parts() -> list[Part]:
    """The three trainings of each size, and `make run`."""
    measures = {f"speedrun/{size}": partial(measure, size) for size in REFERENCE}
    measures["speedrun/run"] = measure_run
    return [Part(name, partial(row, name), lambda name=name, made=made: keep_row(name, made()))
            for name, made in measures.items()]  # fmt: skip


def summaries() -> list[dict]:
    """A row for each size: the seconds, and of the seeds' errors the worst."""
    rows = []
    for size, theirs in REFERENCE.items():
        if kept := row(f"speedrun/{size}"):
            seconds = kept["seconds"]
            found = {"median": statistics.median(seconds), "least": min(seconds),
                     "most": max(seconds), "mse": max(kept["mse"]), "psnr": min(kept["psnr"]),
                     "kl": statistics.mean(kept["kl"])}  # fmt: skip
            rows.append(kept | {"size": size, "theirs": theirs} | found)
    return rows


def main() -> None:
    """Make all rows, whether or not they are there, and print them."""
    for part in parts():
        part.make()
    kept = row("speedrun/run")
    print(table("speedrun", summaries()))
    print(f"`make run`: {kept['seconds']:.0f} s, {kept['share']:.0%} of them training, on "
          f"{kept['hardware']}, {kept['threads']} threads")  # fmt: skip
    missed = [size for size in REFERENCE if not all(row(f"speedrun/{size}")["passed"])]
    if missed:
        raise SystemExit(f"size {missed}: not every training passed the reference's row")


if __name__ == "__main__":
    main()
