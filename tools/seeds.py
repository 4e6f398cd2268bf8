"""How much of a number is chance: each latent in short, with five seeds."""

import statistics

from common import ASSETS, RUNS, Part, keep_row, read_json, training
from comparisons import SHORT
from models import SHIPPED_BETA

from vae_store.folder import read_metrics

SEEDS = 5
SECONDS = 170
MEASURED = {"mse": ".4f", "ssim": ".4f", "psnr": ".2f", "kl": ".1f"}  # and how they are printed


def latents() -> dict[str, str]:
    """Size and grid, and the flags of a training with its usual terms and beta."""
    found = {f"{k} on 7x7": f"--latent-size {k} --beta {b}" for k, b in SHIPPED_BETA.items()}
    return found | {f"{k} on 1x1": f"--latent-size {k} --latent-grid 1" for k in SHIPPED_BETA}


def runs() -> dict[str, str]:
    """Every training, as "seeds/latent/seed", and the flags of its `python -m vae train`."""
    return {
        f"seeds/{latent}/{seed}": f"{flags} {SHORT} --lpips-images 200 --seed {seed}"
        for seed in range(SEEDS)  # so that what is cut off has as many of each
        for latent, flags in latents().items()
    }


def parts() -> list[Part]:
    """The trainings, each of which becomes a row."""
    return [training(name, flags, SECONDS, keep) for name, flags in runs().items()]


def keep(name: str) -> None:
    """Write a finished run's row."""
    metrics = read_metrics(RUNS / name)
    test = {"kl": metrics["test"]["kl"], **metrics["test"]["sample"]}
    kept = {key: test[key] for key in MEASURED}
    origin = {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}
    command = f"python -m vae train {runs()[name]}"
    keep_row(name, {"command": command, "seconds": metrics["seconds"], **kept, **origin})


def spread(rows: list[dict], key: str) -> tuple[float, float]:
    """Mean and standard deviation of a number over the rows of a latent's seeds."""
    values = [row[key] for row in rows]
    return statistics.mean(values), statistics.stdev(values)


def table() -> list[list[str]]:
    """A row for each latent of which there are two seeds or more: every number as mean ± std."""
    found = []
    for latent, seeds in read_json(ASSETS / "seeds.json").items():
        numbers = [f"{mean:{form}} ± {std:{form}}" for key, form in MEASURED.items()
                   for mean, std in [spread(list(seeds.values()), key)]]  # fmt: skip
        found.append([latent.replace("x", "×"), str(len(seeds)), *numbers])
    return found
