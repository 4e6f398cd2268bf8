"""How much of a number is chance: each latent in short, with three seeds."""

import statistics

from common import ASSETS, RUNS, Part, keep_row, read_json, training
from comparisons import SHORT
from models import SHIPPED_BETA

from vae_store.folder import read_metrics

SEEDS = 3
SECONDS = 170
MEASURED = {"mse": ".5f", "ssim": ".4f", "psnr": ".2f", "kl": ".1f"}  # and how they are printed


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


def table() -> list[list[str]]:
    """A row for each latent: over its seeds, each number as mean ± standard deviation."""
    found = []
    for latent, rows in read_json(ASSETS / "seeds.json").items():
        columns = {key: [row[key] for row in rows.values()] for key in MEASURED}
        both = {k: (statistics.mean(v), statistics.stdev(v)) for k, v in columns.items()}
        numbers = [f"{mean:{MEASURED[k]}} ± {std:{MEASURED[k]}}" for k, (mean, std) in both.items()]
        found.append([latent.replace("x", "×"), str(len(rows)), *numbers])
    return found
