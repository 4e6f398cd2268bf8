"""Every training behind `assets/`: its command, and what is kept of its run.

A training that has a folder in `assets/` is shipped whole. Of any other a row is kept: of the
ablation, of the curve of rate and distortion, of other seeds, and of sharpenings with other terms.
"""

import itertools
import shlex
import shutil
from functools import partial
from pathlib import Path

import common
from common import ASSETS, ROOT, RUNS, Part, keep_row, row
from scoring import DEVICE, SAMPLES, decode, encode, judged_twice, seeded

from vae import VAE, load_digits
from vae.machinery.folder import PRIOR_METRICS_NAME, is_finished, read_metrics
from vae.machinery.shipped import REFERENCE, SHARPENED

# At size 16 a smaller beta than 0.3 buys MSE that the eye does not see.
SHIPPED_BETA = {16: 0.3, 4: 0.1, 2: 0.1}
SIZES = sorted(SHIPPED_BETA)
NO_TERMS = "--w-perceptual 0 --w-adversarial 0"  # MSE and KL alone
PLAIN = "--no-variational --beta 0"
GLOBAL = "--latent-grid 1 --budget full"  # one vector for an image; MSE and KL alone
CONDITIONAL = "conditional_16"  # the global model of size 16 that has the label
BERNOULLI = {"bernoulli_2": 2, "bernoulli_10": 10}  # models of black and white digits
SHARPER = {"sharp_2": "--w-adversarial 1.4"}  # two latent values leave most blur to cure
# One pass over 24,000 digits, the same for each comparison; nothing is measured on the way.
SHORT = "--epochs 1 --max-train-images 24000 --early-evaluations 0 --projected-images 10"
COMMON_BETA = 0.1  # in the ablation
ABLATION = {"MSE + KL": NO_TERMS, "+ perceptual": "--w-adversarial 0",
            "+ adversarial": "--w-perceptual 0", "all four": ""}  # fmt: skip
BLURRED, PERCEPTUAL, ADVERSARIAL, ALL = ABLATION
BETAS = (1, 0.3, 0.1, 0.03)  # of the curve of rate and distortion

PAIRS = {"2 on 1x1": "global_2", "4 on 1x1": "global_4", "16 on 1x1": "global_16",
         "4 on 7x7": "latent_4"}  # fmt: skip
SEEDS, FEWER = 5, 3  # of a latent; of a comparison
TERMS_LATENT, IN_FULL = "4 on 7x7", "2 on 7x7, in full"  # trained without a term; as shipped

# Sharpenings with the same flags; encoder, couplings and rate stay the same.
TOLD = {BLURRED: BLURRED, PERCEPTUAL: "+ perceptual only", ADVERSARIAL: "+ adversarial only",
        ALL: "+ both"}  # fmt: skip  # as tables and pictures say it
WEIGHTS = (0.03, 0.2, 2)  # of the adversarial term on the curve, beside none and the default
ABLATED, TERMS_SEEDS = 4, (0, 1, 2)  # latent values, and seeds, of this ablation
KEPT = ("fid", "recognised", "accuracy", "grey", "precision", "recall", "density", "coverage")
WATCHED = ("discriminator", "accuracy_real", "accuracy_fake")


def shipped_commands() -> dict[str, str]:
    """The folders in `assets/`, and the words after `python -m vae` of their trainings."""
    found = {f"latent_{k}": f"train --latent-size {k} --beta {beta} --budget full"
             for k, beta in SHIPPED_BETA.items()}  # fmt: skip
    found |= {f"global_{k}": f"train --latent-size {k} {GLOBAL}" for k in SHIPPED_BETA}
    # A class has few codes to fit, which are learned by heart the sooner.
    more = "--epochs 3 --num-classes 10 --coupling-steps 1"
    found[CONDITIONAL] = f"train --latent-size 16 {GLOBAL} {more}"
    found |= {f"plain_{k}": f"{found[f'global_{k}']} {PLAIN}" for k in SIZES}
    for name, size in BERNOULLI.items():
        flags = "--latent-grid 1 --likelihood bernoulli --budget full --early-evaluations 0"
        longer = " --posterior coupled --epochs 10" if size == 2 else ""  # to shape a plane
        found[name] = f"train --latent-size {size} {flags}{longer}"
    for before, name in SHARPENED.items():
        found[name] = f"sharpen assets/{before} --budget full {SHARPER.get(name, '')}".strip()
    return found


def comparisons() -> dict[str, str]:
    """The short trainings of the ablation, of the curve, and of a plain model on 7x7."""
    short = f"train --latent-size 4 --beta {COMMON_BETA} {SHORT}"
    found = {f"ablation/{variant}": f"{short} {flags}".strip()
             for variant, flags in ABLATION.items()}  # fmt: skip
    for size, beta in itertools.product(REFERENCE, BETAS):
        if (size, beta) != (4, COMMON_BETA):  # the ablation has that one
            short = f"train --latent-size {size} --beta {beta} {SHORT} {NO_TERMS}"
            found[f"rate_distortion/{size}, beta {beta}"] = f"{short} --lpips-images 200"
    plain = shipped_commands()[PAIRS["4 on 7x7"]]
    return found | {"autoencoder/4 on 7x7": f"{plain} {PLAIN}"}


def latents() -> dict[str, str]:
    """Size and grid, and the flags of a training with its usual terms and beta."""
    found = {f"{k} on 7x7": f"--latent-size {k} --beta {SHIPPED_BETA[k]}" for k in SIZES}
    return found | {f"{k} on 1x1": f"--latent-size {k} --latent-grid 1" for k in SIZES}


def compared() -> dict[str, tuple[str, str]]:
    """The variants of a latent: which latent that is, and the flags."""
    found = {f"{TERMS_LATENT}, {k}": (TERMS_LATENT, flags)
             for k, flags in ABLATION.items() if flags}  # fmt: skip
    found |= {f"{pair}, plain": (pair, PLAIN) for pair in PAIRS}
    return {k: (like, f"{latents()[like]} {flags}") for k, (like, flags) in found.items()}


def seeds() -> dict[str, str]:
    """Short trainings, each with several seeds, and one in full with two more."""
    counts = {name: (flags, SEEDS) for name, flags in latents().items()}
    counts |= {name: (flags, FEWER) for name, (_, flags) in compared().items()}
    found = {
        f"seeds/{name}/{seed}": f"train {flags} {SHORT} --lpips-images 200 --seed {seed}"
        for seed in range(SEEDS)  # the outer loop, so that a job that is cut off has some of each
        for name, (flags, count) in counts.items()
        if seed < count
    }
    flags = "--early-evaluations 0 --projected-images 10 --lpips-images 200"
    full = f"{shipped_commands()['latent_2']} {flags}"
    return found | {f"seeds/{IN_FULL}/{k}": f"{full} --seed {k}" for k in range(1, FEWER)}


def terms_row(size: int, variant: str, seed: int = TERMS_SEEDS[0]) -> str:
    return f"terms/{size}, seed {seed}/{variant}"


def sharpenings() -> dict[str, str]:
    """The short sharpenings: every size with the first seed, one size with all seeds."""
    curve = ABLATION | {f"w = {w:g}": f"--w-adversarial {w:g}" for w in WEIGHTS}
    runs = [(TERMS_SEEDS[0], size, curve) for size in SIZES]
    runs += [(seed, ABLATED, ABLATION) for seed in TERMS_SEEDS[1:]]
    found = {}
    for seed, size, variants in runs:
        start = f"sharpen assets/global_{size} --budget quick --seed {seed}"
        for variant, flags in variants.items():
            found[terms_row(size, variant, seed)] = f"{start} {flags}".strip()
    return found


def commands() -> dict[str, str]:
    """Every training but the priors', and the words after its `python -m vae`."""
    found = shipped_commands() | comparisons() | seeds() | sharpenings()
    return dict(sorted(found.items(), key=lambda item: item[1].startswith("sharpen")))


def parts() -> list[Part]:
    """The trainings, sharpenings after the models that they start from, and the priors'."""
    found = [training(name, command) for name, command in commands().items()]
    for size in SHIPPED_BETA:
        name, command = f"latent_{size}", f"python -m vae train-prior assets/latent_{size} --resume"
        there = (ASSETS / name / PRIOR_METRICS_NAME).is_file
        found.append(Part(f"prior/{name}", there, partial(common.run, command), command))
    return found


def training(name: str, words: str) -> Part:
    """A training in `runs/results`, unless it is finished there, and what keeps its result."""
    folder, group = RUNS / name, name.partition("/")[0]
    place = shlex.quote(str(folder.relative_to(ROOT)))
    command = f"python -m vae {words} --resume --run-dir {place}"

    def done() -> bool:
        kept = is_finished(ASSETS / name) or bool(row(name))
        return kept or (group == "autoencoder" and is_finished(folder))

    def make() -> None:
        if not is_finished(folder):
            common.run(command)
        if group in ROWS:
            metrics = read_metrics(folder)
            about = {"command": f"python -m vae {words}", "seconds": metrics["seconds"]}
            keep_row(name, about | origin(metrics) | ROWS[group](name, metrics))
        elif group != "autoencoder":
            publish(name)

    return Part(name, done, make, command)


def publish(name: str) -> None:
    """Copy a finished run to `assets/`, with the pictures that pages and notebooks show."""
    target, whole = ASSETS / name, ASSETS / f".{name}"
    measured = name.startswith(("plain", "bernoulli"))
    bare = ("*.png", "*.gif", "*.npz") if measured else ("samples.png", "train_metrics.png")
    shutil.rmtree(whole, ignore_errors=True)
    shutil.copytree(RUNS / name, whole, ignore=shutil.ignore_patterns(".*", *bare))
    shutil.rmtree(target, ignore_errors=True)
    whole.rename(target)


def origin(metrics: dict) -> dict:
    return {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}


def last(metrics: dict, *names: str) -> dict:
    """Values of the discriminator at the end of a training, if it had one."""
    values = metrics["history"]["train"][-1]
    return {key: values[key] for key in names if key in values}


def comparison(name: str, metrics: dict) -> dict:
    """A row of the ablation or of the curve."""
    config, watched = metrics["config"], last(metrics, *WATCHED, "adaptive_weight")
    return {"beta": config["beta"], "latent_size": config["model"]["latent_size"],
            "seed": config["seed"], "test": metrics["test"], "discriminator": watched}  # fmt: skip


def measured(metrics: dict) -> dict:
    """The rate, and the errors of reconstructions from z ~ q(z|x)."""
    test = metrics["test"] | metrics["test"]["sample"]
    return {key: test[key] for key in ("mse", "ssim", "psnr", "kl", "lpips") if key in test}


def sharpening(name: str, metrics: dict) -> dict:
    """Scores of a run's reconstructions and samples, and the state of its discriminator."""
    model, (images, labels) = VAE.from_pretrained(RUNS / name).to(DEVICE), load_digits("test")
    made = {"reconstructions": (decode(model, encode(model, images, seeded())), labels),
            "N(0, I)": (model.sample(SAMPLES, None, seeded()), None)}  # fmt: skip
    found = {key: metrics["test"][key] for key in ("sample", "kl")}
    for source, scored in made.items():
        scores = judged_twice(*scored, copies=False)
        found[source] = {key: scores[key] for key in KEPT if key in scores}
    return found | last(metrics, *WATCHED)


ROWS = {"ablation": comparison, "rate_distortion": comparison, "terms": sharpening,
        "seeds": lambda name, metrics: measured(metrics)}  # fmt: skip


def plain_folders() -> dict[str, Path]:
    """The folders of each pair of a plain autoencoder and a variational one."""
    found = {}
    for pair, like in PAIRS.items():
        shipped = ASSETS / like.replace("global", "plain")
        found[f"{pair}/plain"] = RUNS / "autoencoder" / pair if "7x7" in pair else shipped
        found[f"{pair}/variational"] = ASSETS / like
    return found


def beats_reference(size: int, sample: dict) -> bool:
    """Whether MSE, SSIM and PSNR are all better than the reference's."""
    mse, ssim, psnr = REFERENCE[size]
    return sample["mse"] < mse and sample["ssim"] > ssim and sample["psnr"] > psnr
