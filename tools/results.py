"""Train all that `assets/` shows, the most important first, and draw its comparisons.

    python tools/results.py [--only latent_2 ...]

A run that is finished, in `runs/results/` or by its numbers in `assets/`, is not repeated, so that
this can be cut off and started again. `--list` prints the command of each run.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt

from vae import LPIPS, TrainConfig, evaluate, load_digits
from vae.cli import print_table
from vae.files import FileError, sha256, write_atomically
from vae.judge import FOLDER as JUDGE
from vae.notebook import REFERENCE
from vae.prior_training import METRICS_NAME as PRIOR_METRICS
from vae.run import Run, is_finished, read_metrics

ROOT = Path(__file__).parent.parent
ASSETS, RUNS = ROOT / "assets", ROOT / "runs" / "results"
# Of the shipped models. At size 16 a smaller beta than 0.3 buys MSE that the eye does not see.
SHIPPED_BETA = {16: 0.3, 4: 0.1, 2: 0.1}
# One pass over 24,000 digits, the same for each comparison; nothing is measured on the way.
SHORT = "--epochs 1 --max-train-images 24000 --early-evaluations 0 --projected-images 10"
PLAIN = "--w-perceptual 0 --w-adversarial 0"  # MSE and KL alone
REFERENCE_SECONDS = 24_000  # 20 epochs of 1,204 s on two cores
COMMON_BETA = 0.1  # in the ablation
ABLATION = {  # variant: flags, and what a person sees in assets/ablation.png (look again!)
    "MSE + KL": (PLAIN, "the digit, whole; nothing to tell it from the original"),
    "+ perceptual": ("--w-adversarial 0", "no difference from MSE + KL"),
    "+ adversarial": ("--w-perceptual 0", "no difference from MSE + KL"),
    "all four": ("", "no difference from MSE + KL"),
}
BETAS = (1, 0.3, 0.1, 0.03)  # of the rate-distortion curve
# One vector for an image. Half the learning rate gives 10 nats after 24,000 digits.
GLOBAL = f"--latent-grid 1 --learning-rate 0.003 {PLAIN} --budget full"
CONDITIONAL = "conditional_16"  # the global model of size 16 that is told the digit
PRIOR_FLAGS = "--resume"
AUTOENCODERS = ((2, 1), (4, 1), (16, 1), (4, 7))  # latent size and grid


def beats_reference(size: int, row: dict) -> bool:
    """Whether MSE, SSIM and PSNR are all better than the reference's."""
    mse, ssim, psnr = REFERENCE[size]
    return row["mse"] < mse and row["ssim"] > ssim and row["psnr"] > psnr


def time_to_reference(size: int) -> tuple[float, float, float] | None:
    """When a shipped training first passed its row: seconds, times faster, epoch; None: never."""
    for row in read_metrics(ASSETS / f"latent_{size}")["history"]["test"]:
        if beats_reference(size, row):
            seconds = row["training_seconds"]
            return seconds, REFERENCE_SECONDS / seconds, row["epoch"]
    return None


def curve_points() -> dict[str, dict]:
    """The rows of the rate-distortion curve, with the one that the ablation has."""
    points = read_json(ASSETS / "rate_distortion.json")
    shared = read_json(ASSETS / "ablation.json").get("MSE + KL")
    return points | ({f"4, beta {COMMON_BETA}": shared} if shared else {})


def runs() -> dict[str, str]:
    """Every run's name and the flags of its `python -m vae train`, in order of importance."""
    commands = {
        f"latent_{size}": f"--latent-size {size} --beta {beta} --budget full"
        for size, beta in SHIPPED_BETA.items()
    }
    for variant, (flags, _) in ABLATION.items():
        short = f"--latent-size 4 --beta {COMMON_BETA} {SHORT} {flags}"
        commands[f"ablation/{variant}"] = short.strip()
    for size in REFERENCE:
        for beta in BETAS:
            if (size, beta) != (4, COMMON_BETA):  # the ablation's MSE + KL is that one
                short = f"--latent-size {size} --beta {beta} {SHORT} {PLAIN} --lpips-images 200"
                commands[f"rate_distortion/{size}, beta {beta}"] = short
    for size in sorted(REFERENCE, reverse=True):
        commands[f"global_{size}"] = f"--latent-size {size} {GLOBAL}"
    commands[CONDITIONAL] = f"--latent-size 16 {GLOBAL} --num-classes 10"
    for size, grid in AUTOENCODERS:  # as the variational one that it is compared with
        recipe = GLOBAL if grid == 1 else "--budget full"
        plain = f"--latent-size {size} {recipe} --no-variational --beta 0"
        commands[f"autoencoder/{size} on {grid}x{grid}"] = plain
    return commands


def train_priors() -> None:
    """Train the priors of the shipped models that have none yet."""
    for size in SHIPPED_BETA:
        folder = ASSETS / f"latent_{size}"
        if is_finished(folder) and not (folder / PRIOR_METRICS).is_file():
            print(f"\npython -m vae train-prior assets/latent_{size} {PRIOR_FLAGS}", flush=True)
            command = [sys.executable, "-m", "vae", "train-prior", folder, *PRIOR_FLAGS.split()]
            subprocess.run(list(map(str, command)), cwd=ROOT, check=True)


def summary(name: str, flags: str) -> dict:
    """What `assets/*.json` keeps of a short run: command, numbers, discriminator, origin."""
    metrics = read_metrics(RUNS / name)
    last = metrics["history"]["train"][-1]
    watched = ("discriminator", "accuracy_real", "accuracy_fake", "adaptive_weight")
    origin = {key: metrics["environment"][key] for key in ("commit", "hardware", "torch")}
    return {
        "command": f"python -m vae train {flags}",
        "test": metrics["test"],
        "beta": metrics["config"]["beta"],
        "latent_size": metrics["config"]["model"]["latent_size"],
        "seed": metrics["config"]["seed"],
        "seconds": metrics["seconds"],
        "discriminator": {key: last[key] for key in watched if key in last},
    } | origin


def train(name: str, flags: str) -> None:
    """Run one training in a process of its own."""
    print(f"\n{name}: python -m vae train {flags}", flush=True)
    flags += " --resume"
    command = [sys.executable, "-m", "vae", "train", *flags.split(), "--run-dir", RUNS / name]
    subprocess.run(list(map(str, command)), cwd=ROOT, check=True)


def publish_model(name: str) -> None:
    """Copy a finished run to `assets/`."""
    target = ASSETS / name
    partial = ASSETS / f".{name}"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(RUNS / name, partial, ignore=shutil.ignore_patterns(".*"))
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def read_json(path: Path) -> dict:
    return json.loads(path.read_text()) if path.is_file() else {}


def write_json(path: Path, content: dict) -> None:
    text = json.dumps(content, indent=1) + "\n"
    write_atomically(path, lambda temporary: temporary.write_text(text))


def fingerprint(*weights: Path) -> str:
    """Of the judge and the weights that were measured: where it differs, a row is out of date."""
    files = [JUDGE / "model.safetensors", *weights]
    return sha256(b"".join(path.read_bytes() for path in files))[:16]


def second_lpips(directory: Path) -> float | None:
    """LPIPS v0.1 of z ~ q(z|x), or None where its weights cannot be had."""
    try:
        lpips = LPIPS("v0.1")
    except FileError:
        return None
    images = load_digits("test").images[: TrainConfig.lpips_images]
    model = Run.load(directory).model
    return evaluate(model, images, mean=False, lpips=lpips)["sample"]["lpips"]


def draw_ablation() -> None:
    """One row of digits for the originals and for each variant."""
    frames = {variant: Run.load(RUNS / "ablation" / variant).frames for variant in ABLATION}
    rows = {"original": next(iter(frames.values())).originals}
    rows |= {variant: frame.reconstructions[-1] for variant, frame in frames.items()}
    figure, axes = plt.subplots(len(rows), 10, figsize=(11, 1.05 * len(rows) + 0.4))
    for (name, images), line in zip(rows.items(), axes, strict=True):
        for image, axis in zip(images, line, strict=True):
            axis.imshow(image, cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name, rotation=0, ha="right", va="center", fontsize=10)
    figure.suptitle("Latent size 4, 24,000 training digits: z ~ q(z|x)", fontsize=11)
    figure.tight_layout(pad=0.3)
    figure.savefig(ASSETS / "ablation.png", dpi=110)
    plt.close(figure)


def draw_rate_distortion() -> None:
    """KL against PSNR: a line for each latent size (MSE + KL), a star for each shipped model."""
    points = curve_points()
    if len(points) < len(REFERENCE) * len(BETAS):
        return
    figure, axis = plt.subplots(figsize=(7.5, 5.4), layout="constrained")
    for colour, (size, (*_, psnr)) in zip(("C0", "C1", "C2"), REFERENCE.items(), strict=True):
        own = sorted(
            (p for p in points.values() if p["latent_size"] == size), key=lambda p: p["test"]["kl"]
        )
        rate = [p["test"]["kl"] for p in own]
        quality = [p["test"]["sample"]["psnr"] for p in own]
        axis.plot(rate, quality, "o-", color=colour, label=f"latent size {size}")
        for x, y, point in zip(rate, quality, own, strict=True):
            axis.annotate(f"β={point['beta']:g}", (x, y), (5, -12), textcoords="offset points",
                          fontsize=8, color=colour)  # fmt: skip
        axis.axhline(psnr, color=colour, linestyle=":", linewidth=1)
        axis.text(0.99, psnr + 0.1, f"reference, {size}", transform=axis.get_yaxis_transform(),
                  ha="right", fontsize=8, color=colour)  # fmt: skip
        shipped = ASSETS / f"latent_{size}"
        if is_finished(shipped):
            test = read_metrics(shipped)["test"]
            beta = read_metrics(shipped)["config"]["beta"]
            axis.plot(test["kl"], test["sample"]["psnr"], "*", markersize=14, color=colour,
                      markeredgecolor="black")  # fmt: skip
            axis.annotate(f"β={beta:g}", (test["kl"], test["sample"]["psnr"]), (8, -4),
                          textcoords="offset points", fontsize=8, color=colour)  # fmt: skip
    axis.plot([], [], "*", markersize=12, color="white", markeredgecolor="black",
              label="shipped model: all four terms, trained longer")  # fmt: skip
    axis.plot([], [], ":", color="grey", label="reference's PSNR (no KL: no bound on its rate)")
    axis.set(xlabel="rate: KL(q(z|x) ‖ p(z)), nats per image", ylabel="PSNR of z ~ q(z|x), dB")
    axis.set_title(
        "MNIST's 10,000 test digits; points: MSE + KL, one pass over 24,000 digits", fontsize=10
    )
    axis.grid(alpha=0.3)
    figure.legend(fontsize=8, loc="outside lower center", ncols=3)
    figure.savefig(ASSETS / "rate_distortion.png", dpi=120)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(runs()), help="these runs alone")
    parser.add_argument("--list", action="store_true", help="print the commands, train nothing")
    options = parser.parse_args()
    commands = runs()
    if options.list:
        for name, flags in commands.items():
            folder = shlex.quote(str((RUNS / name).relative_to(ROOT)))
            print(f"python -m vae train {flags} --run-dir {folder}")
        for size in SHIPPED_BETA:
            print(f"python -m vae train-prior assets/latent_{size} {PRIOR_FLAGS}")
        return
    for name, flags in commands.items():
        if options.only and name not in options.only:
            continue
        table, _, variant = name.partition("/")
        rows = read_json(ASSETS / f"{table}.json")
        if is_finished(ASSETS / name) or variant in rows:
            continue
        if not is_finished(RUNS / name):
            train(name, flags)
        if not variant:
            publish_model(name)
            continue
        if table == "autoencoder":  # tools/autoencoder.py measures these, and writes their file
            continue
        rows[variant] = summary(name, flags)
        if table == "ablation":
            rows[variant]["lpips_v0.1"] = second_lpips(RUNS / name)
            rows[variant]["seen"] = ABLATION[variant][1]
        write_json(ASSETS / f"{table}.json", rows)
    if all(is_finished(RUNS / "ablation" / variant) for variant in ABLATION):
        draw_ablation()
    draw_rate_distortion()
    if not options.only:
        train_priors()
    for size in SHIPPED_BETA:
        if is_finished(ASSETS / f"latent_{size}"):
            print(f"assets/latent_{size}")
            print_table(read_metrics(ASSETS / f"latent_{size}")["test"])


if __name__ == "__main__":
    main()
