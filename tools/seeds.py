"""How much of a number is chance: short trainings, each with several seeds.

Every latent with its usual terms; a latent of four channels without one term or two; and plain
autoencoders. Besides, the shipped training of one latent, in full, with two more seeds.
"""

import statistics

from autoencoder import PAIRS
from common import ASSETS, FULL_SECONDS, RUNS, Part, keep_row, read_json, training
from comparisons import ABLATION, SHORT
from models import SHIPPED_BETA
from models import runs as shipped

from vae_store.folder import read_metrics

SEEDS, FEWER = 5, 3  # of a latent; of a comparison
SECONDS = 170  # of a short training
MEASURED = {"mse": ".5f", "ssim": ".4f", "psnr": ".2f", "kl": ".1f"}  # and how they are printed
TERMS, AS_A_POINT = "4 on 7x7", ", plain"  # what is trained without a term; what is no VAE
IN_FULL = ", in full"
SHIPPED, AS_SHIPPED = "latent_2", f"2 on 7x7{IN_FULL}"  # the first seed; its table's row


def latents() -> dict[str, str]:
    """Size and grid, and the flags of a training with its usual terms and beta."""
    sizes, beta = sorted(SHIPPED_BETA), SHIPPED_BETA
    found = {f"{k} on 7x7": f"--latent-size {k} --beta {beta[k]}" for k in sizes}
    return found | {f"{k} on 1x1": f"--latent-size {k} --latent-grid 1" for k in sizes}


def compared() -> dict[str, tuple[str, str]]:
    """What is compared with a latent: that latent, and the flags."""
    usual = latents()
    terms = {f"{TERMS}, {k}": (TERMS, flags) for k, (flags, _) in ABLATION.items() if flags}
    plain = {f"{k}{AS_A_POINT}": (k, "--no-variational --beta 0") for k in PAIRS}
    return {k: (like, f"{usual[like]} {flags}") for k, (like, flags) in (terms | plain).items()}


def runs() -> dict[str, str]:
    """Every training, as "seeds/latent/seed", and the flags of its `python -m vae train`."""
    counts = {name: (flags, SEEDS) for name, flags in latents().items()}
    counts |= {name: (flags, FEWER) for name, (_, flags) in compared().items()}
    short = {
        f"seeds/{name}/{seed}": f"{flags} {SHORT} --lpips-images 200 --seed {seed}"
        for seed in range(SEEDS)  # so that what is cut off has as many of each
        for name, (flags, count) in counts.items()
        if seed < count
    }
    more = range(1, FEWER)
    full = f"{shipped()[SHIPPED]} --early-evaluations 0 --projected-images 10 --lpips-images 200"
    return short | {f"seeds/{AS_SHIPPED}/{seed}": f"{full} --seed {seed}" for seed in more}


def parts() -> list[Part]:
    """The trainings, each of which becomes a row."""
    return [
        training(name, flags, FULL_SECONDS if IN_FULL in name else SECONDS, keep)
        for name, flags in runs().items()
    ]


def keep(name: str) -> None:
    """Write a finished run's row."""
    metrics = read_metrics(RUNS / name)
    kept = measured(metrics, *MEASURED, "lpips")
    origin = {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}
    command = f"python -m vae train {runs()[name]}"
    keep_row(name, {"command": command, "seconds": metrics["seconds"], **kept, **origin})


def measured(metrics: dict, *names: str) -> dict:
    """Those numbers that there are of reconstructions from z ~ q(z|x)."""
    test = metrics["test"] | metrics["test"]["sample"]
    return {key: test[key] for key in names if key in test}


def rows_of(name: str) -> list[dict]:
    """A row for each seed that is there."""
    rows = list(read_json(ASSETS / "seeds.json").get(name, {}).values())
    first = [measured(read_metrics(ASSETS / SHIPPED), *MEASURED)] if name == AS_SHIPPED else []
    return first + rows


def spread(name: str) -> dict[str, tuple[float, float]]:
    """Mean and standard deviation of each number over the seeds that are there."""
    rows = rows_of(name)
    columns = {key: [row[key] for row in rows if key in row] for key in MEASURED}
    return {
        key: (statistics.mean(values), statistics.stdev(values))
        for key, values in columns.items()
        if len(values) > 1
    }


def table() -> list[list[str]]:
    """A row for each latent: over its seeds, each number as mean ± standard deviation."""
    found = []
    for name in (*latents(), AS_SHIPPED):
        both, count = spread(name), len(rows_of(name))
        if not both:
            continue
        numbers = [f"{both[k][0]:{form}} ± {both[k][1]:{form}}" for k, form in MEASURED.items()]
        found.append([name.replace("x", "×"), str(count), *numbers])
    return found


def differences() -> list[list[str]]:
    """A row for each comparison: how far it is from its latent, or that this may be chance."""
    found = []
    for name, (like, _) in compared().items():
        these, usual, cells = spread(name), spread(like), []
        for key, form in MEASURED.items():
            if key not in these:
                cells.append("–")
                continue
            (mean, deviation), (other, others) = these[key], usual[key]
            apart, chance = mean - other, (deviation**2 + others**2) ** 0.5
            shown = f"{apart:+{form}} ± {chance:{form}}"
            cells.append(shown if abs(apart) > chance else f"none ({shown})")
        if these:
            found.append([name.replace("x", "×"), *cells])
    return found
