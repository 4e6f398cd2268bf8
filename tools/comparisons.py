"""What each loss term does, and rate against distortion: short trainings, and their pictures."""

import contextlib
import itertools

from common import ASSETS, RUNS, Part, keep_row, picture, read_json, row, training
from matplotlib.figure import Figure
from models import PLAIN

from vae import LPIPS, VAE, FileError, evaluate, load_digits
from vae_show.showcase import REFERENCE
from vae_store.folder import METRICS_NAME, read_metrics

# One pass over 24,000 digits, the same for each comparison; nothing is measured on the way.
SHORT = "--epochs 1 --max-train-images 24000 --early-evaluations 0 --projected-images 10"
COMMON_BETA = 0.1  # in the ablation
ABLATION = {  # on 7x7; variant: flags, and what a person sees of it beside the first
    "MSE + KL": (PLAIN, "the digit, whole; nothing to tell it from the original"),
    "+ perceptual": ("--w-adversarial 0", "no difference from MSE + KL"),
    "+ adversarial": ("--w-perceptual 0", "no difference from MSE + KL"),
    "all four": ("", "no difference from MSE + KL"),
}
SHORT_SECONDS = 200  # where no record is there
BETAS = (1, 0.3, 0.1, 0.03)  # of the rate-distortion curve


def runs() -> dict[str, str]:
    """Every short training, as "table/row", and the flags of its `python -m vae train`."""
    commands = {}
    for variant, (flags, _) in ABLATION.items():
        short = f"--latent-size 4 --beta {COMMON_BETA} {SHORT} {flags}"
        commands[f"ablation/{variant}"] = short.strip()
    for size, beta in itertools.product(REFERENCE, BETAS):
        if (size, beta) != (4, COMMON_BETA):  # the ablation's MSE + KL is that one
            short = f"--latent-size {size} --beta {beta} {SHORT} {PLAIN} --lpips-images 200"
            commands[f"rate_distortion/{size}, beta {beta}"] = short
    return commands


def parts() -> list[Part]:
    """The short trainings, each of which becomes a row of its table; the curve."""
    shown = [ASSETS / f"{table}.json" for table in ("ablation", "rate_distortion")]
    shown += [ASSETS / f"latent_{size}" / METRICS_NAME for size in REFERENCE]
    return [
        *(training(name, flags, SHORT_SECONDS, keep) for name, flags in runs().items()),
        picture("rate_distortion", shown, draw_rate_distortion),
    ]


def keep(name: str) -> None:
    """Write a finished run's row: command, numbers, discriminator, origin."""
    metrics, (table, _, variant) = read_metrics(RUNS / name), name.partition("/")
    config, last = metrics["config"], metrics["history"]["train"][-1]
    watched = ("discriminator", "accuracy_real", "accuracy_fake", "adaptive_weight")
    kept = {
        "command": f"python -m vae train {runs()[name]}",
        "test": metrics["test"],
        "beta": config["beta"],
        "latent_size": config["model"]["latent_size"],
        "seed": config["seed"],
        "seconds": metrics["seconds"],
        "discriminator": {key: last[key] for key in watched if key in last},
        **{key: metrics["environment"][key] for key in ("commit", "hardware", "torch")},
    }
    if table == "ablation":
        model, images = VAE.from_pretrained(RUNS / name), load_digits("test").images
        kept |= {"lpips_v0.1": None, "seen": ABLATION[variant][1]}
        with contextlib.suppress(FileError):  # its weights cannot be had everywhere
            measured = evaluate(model, images[:1000], mean=False, lpips=LPIPS("v0.1"))
            kept["lpips_v0.1"] = measured["sample"]["lpips"]
    keep_row(name, kept)


def curve_points() -> dict[str, dict]:
    """The rows of the rate-distortion curve, with the one that the ablation has."""
    points = read_json(ASSETS / "rate_distortion.json")
    shared = row("ablation/MSE + KL")
    return points | ({f"4, beta {COMMON_BETA}": shared} if shared else {})


def draw_rate_distortion() -> Figure:
    """KL against PSNR: a line for each latent size (MSE + KL), a star for each shipped model."""
    figure = Figure(figsize=(7.5, 5.4), dpi=120, layout="constrained")
    axis, points = figure.subplots(), curve_points().values()
    star = {"marker": "*", "markeredgecolor": "black", "linestyle": ""}
    for colour, (size, (*_, reference)) in zip(("C0", "C1", "C2"), REFERENCE.items(), strict=True):
        shipped = read_metrics(ASSETS / f"latent_{size}")
        own = sorted((p for p in points if p["latent_size"] == size), key=lambda p: p["test"]["kl"])
        marks = [(p["test"], p["beta"], (5, -12)) for p in own]
        marks.append((shipped["test"], shipped["config"]["beta"], (8, -4)))
        places = [(test["kl"], test["sample"]["psnr"]) for test, *_ in marks]
        axis.plot(*zip(*places[:-1], strict=True), "o-", color=colour, label=f"latent size {size}")
        axis.plot(*places[-1], color=colour, markersize=14, **star)
        for place, (_, beta, offset) in zip(places, marks, strict=True):
            axis.annotate(f"β={beta:g}", place, offset, textcoords="offset points", fontsize=8,
                          color=colour)  # fmt: skip
        axis.axhline(reference, color=colour, linestyle=":", linewidth=1)
        axis.text(0.99, reference + 0.1, f"reference, {size}", color=colour, fontsize=8,
                  ha="right", transform=axis.get_yaxis_transform())  # fmt: skip
    axis.plot([], [], color="white", markersize=12, **star,
              label="shipped model: all four terms, trained longer")  # fmt: skip
    axis.plot([], [], ":", color="grey", label="reference's PSNR (no KL: no bound on its rate)")
    axis.set(xlabel="rate: KL(q(z|x) ‖ p(z)), nats per image", ylabel="PSNR of z ~ q(z|x), dB")
    title = "MNIST's 10,000 test digits; points: MSE + KL, one pass over 24,000 digits"
    axis.set_title(title, fontsize=10)
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    return figure
