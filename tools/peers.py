"""Train other projects' VAEs for as long as ours, one after the other, and measure all alike.

    python tools/peers.py [--only pythae ...]
    python tools/peers.py --shipped  # pythae's, as long as assets/global_16: assets/pythae.json

Of each latent ours goes first, with MSE and KL alone, and the others get the seconds that it took,
with as many threads. diffusers, pythae and PyTorch's example (all that it needs is torch) are
installed in environments of their own in `runs/peers`, where `peer_worker.py` trains them. A row
that is there for the same command is not made again. The result is `assets/peers.json`.
"""

import argparse
import math
import os
import shlex
import shutil
import subprocess
import sys
import venv
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import ASSETS, ROOT, Part, read_json, row, run, shipped
from peer_worker import source_of
from scoring import CHUNK, SAMPLES, judged_twice, seeded
from torch import Tensor
from trainings import NO_TERMS

import vae
from vae import VAE, load_digits, scale_images
from vae.data import batches
from vae.machinery.folder import read_metrics
from vae.machinery.machine import commit, hardware
from vae.pretrained import write_json

TABLE, FOLDER = ASSETS / "peers.json", ROOT / "runs" / "peers"
WORKER = Path(__file__).with_name("peer_worker.py")
IMAGES, THREADS = 24_000, 1  # that ours sees; of everybody
# Nothing is measured on the way, and nobody computes in half precision.
ALIKE = "--early-evaluations 0 --projected-images 10 --lpips-images 0 --mixed-precision no"
RATES = (3e-4, 1e-3, 3e-3)  # of AdamW, where it is searched
PACKAGES = {  # of each environment; the first's torch is everybody's
    "torch": ("torch", "numpy", "setuptools"),
    "diffusers": ("diffusers==0.42.1",),
    "pythae": ("pythae==0.1.2",),
}


class Row(NamedTuple):
    """Ours, which has `flags`; or a peer, which trains as long as `like` did."""

    title: str
    latent: str
    flags: str = ""
    like: str = ""
    environment: str = ""
    rates: tuple[float | None, ...] = (None,)  # the best is kept; None: the peer's own


ROWS = {
    "ours_2_on_7x7": Row(
        "this repository, MSE + KL", "2 on 7×7", f"--latent-size 2 --beta 0.1 {NO_TERMS}"
    ),
    "diffusers_calibrated": Row(
        "diffusers' AutoencoderKL, the same loss", "2 on 7×7", like="ours_2_on_7x7",
        environment="diffusers", rates=RATES,
    ),
    "diffusers_script_loss": Row(
        "the same with the loss of diffusers' training script", "2 on 7×7", like="ours_2_on_7x7",
        environment="diffusers", rates=RATES,
    ),
    "diffusers_script": Row(
        "the same with that script's learning rate and batch too", "2 on 7×7",
        like="ours_2_on_7x7", environment="diffusers",
    ),
    "ours_16_on_1x1": Row(
        "this repository, MSE + KL", "16 on 1×1", "--latent-size 16 --latent-grid 1"
    ),
    "pythae": Row("pythae's VAE", "16 on 1×1", like="ours_16_on_1x1", environment="pythae"),
    "ours_20_on_1x1": Row(
        "this repository, MSE + KL", "20 on 1×1", "--latent-size 20 --latent-grid 1"
    ),
    "pytorch_example": Row(
        "PyTorch's VAE example", "20 on 1×1", like="ours_20_on_1x1", environment="torch"
    ),
}  # fmt: skip


def parts() -> list[Part]:
    """Every row."""
    return [Part(f"peers/{name}", partial(is_there, name, command(name)),
                 partial(run, command(name)), command(name)) for name in ROWS]  # fmt: skip


def training_of(name: str, images: int = IMAGES) -> str:
    """The training of one of our rows. `images`: at most a pass, or whole passes of 60,000."""
    passes = max(1, images // 60_000)
    seen = f"--epochs {passes} --max-train-images {images // passes}"
    return f"python -m vae train {ROWS[name].flags} {seen} {ALIKE}"


def command(name: str, images: int = IMAGES, threads: int = THREADS,
            seconds: float | None = None) -> str:  # fmt: skip
    """The command of a row; `seconds`: of a peer, if they aren't those of ours."""
    found = f"python tools/peers.py --only {shlex.quote(name)}"
    found += f" --images {images}" if images != IMAGES else ""
    found += f" --threads {threads}" if threads != THREADS else ""
    return found + (f" --seconds {seconds:g}" if seconds and ROWS[name].like else "")


def made_by(row: dict, command: str) -> bool:
    """Whether a row is that of a command. The script was in `benchmarks/` once."""
    return row.get("command", "").partition("/")[2] == command.partition("/")[2]


def is_there(name: str, asked: str, seconds: float | None = None, table: Path = TABLE) -> bool:
    """Whether the row is that of the command, and a peer's beside ours as it is now."""
    rows = read_json(table)
    row, like = rows.get(name, {}), ROWS[name].like
    seconds = rows.get(like, {}).get("seconds") if seconds is None else seconds
    return made_by(row, asked) and (not like or row["given_seconds"] == seconds)


def python_of(environment: str) -> Path:
    """The Python of an environment, which is made if it is not there."""
    folder = FOLDER / environment
    python, mark = folder / "venv" / "bin" / "python", folder / "installed.txt"
    wanted = "\n".join(PACKAGES[environment])
    if mark.is_file() and mark.read_text("utf-8") == wanted:
        return python
    shared = python_of("torch") if environment != "torch" else None
    print(
        f"installing {', '.join(PACKAGES[environment])} in {folder.relative_to(ROOT)}", flush=True
    )
    venv.create(folder / "venv", clear=True, symlinks=True, with_pip=True)
    if shared:  # gigabytes that need not be there twice
        (packages_of(python) / "torch.pth").write_text(f"{packages_of(shared)}\n", "utf-8")
    try:
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quiet, *PACKAGES[environment]], check=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"pip could not install {wanted!r} in {folder}: see above") from error
    mark.write_text(wanted, "utf-8")
    return python


def packages_of(python: Path) -> Path:
    """The folder of a Python's packages."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    asked = subprocess.run([python, "-I", "-c", ask], check=True, capture_output=True, text=True)
    return Path(asked.stdout.strip())


def start(arguments: list[str | Path], threads: int, what: str) -> None:
    """Run a Python program with some threads and no network. Raises `OSError` if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    try:
        subprocess.run([str(part) for part in arguments], check=True, cwd=ROOT, env=environment)
    except subprocess.CalledProcessError as error:
        if error.returncode in (130, -2):
            raise KeyboardInterrupt from error
        raise OSError(f"{what} failed (exit status {error.returncode}): see above") from error


def ours(name: str, images: int, threads: int) -> tuple[Tensor, Tensor, dict]:
    """Train ours: reconstructions of the test digits and samples, in [-1, 1], and a report."""
    folder, training = FOLDER / "rows" / name, training_of(name, images)
    shutil.rmtree(folder, ignore_errors=True)
    words = [sys.executable, *shlex.split(training)[1:], "--run-dir", folder]
    start(words, threads, f"the training of {name}")
    model, metrics = VAE.from_pretrained(folder), read_metrics(folder)
    config, here = metrics["config"], metrics["environment"]
    digits, made, kl = load_digits("test").images, [], []
    noise = torch.randn(len(digits), *model.config.latent_shape, generator=seeded())
    with torch.no_grad():
        for part, eps in batches(CHUNK, digits, noise):
            y, posterior = model(scale_images(part), None, eps)
            made.append(y)
            kl.append(posterior.kl(eps))
    report = {
        "training": training, "parameters": sum(p.numel() for p in model.parameters()),
        "source": source_of(model), "seconds": metrics["seconds"]["training"],
        "images": metrics["history"]["train"][-1]["step"] * config["batch_size"],
        "batch_size": config["batch_size"], "learning_rate": config["learning_rate"],
        "kl": torch.cat(kl).double().mean().item(), "versions": {"torch": here["torch"]},
        "threads": here["threads"],
    }  # fmt: skip
    return torch.cat(made), model.sample(SAMPLES, None, seeded()), report


def peer(name: str, seconds: float, threads: int) -> tuple[Tensor, Tensor, dict]:
    """Train a peer, the same as of `ours`; of several learning rates that of the lowest loss.

    The loss is its own, of the test digits: if this favours somebody, it is the peer.
    """
    row, reports, place = ROWS[name], {}, FOLDER / "rows" / name
    python = python_of(row.environment)
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for split in ("train", "test"):
        np.save(place / f"{split}.npy", load_digits(split).images.numpy())
    for rate in row.rates:
        (folder := place / f"{rate or 0:g}").mkdir()
        asked = ["--learning-rate", str(rate)] if rate else []
        start([python, "-I", WORKER, name, place, folder, str(seconds), *asked], threads, name)
        reports[folder] = read_json(folder / "report.json")
    losses = {folder: report["loss"] for folder, report in reports.items()}
    finite = {folder: loss for folder, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise OSError(f"{name} diverged at every learning rate: its losses are {losses}")
    folder = min(finite, key=finite.get)
    report = reports[folder] | {"given_seconds": seconds}
    if len(row.rates) > 1:
        report["searched"] = {tried.name: loss for tried, loss in finite.items()}
    images = [as_ours(torch.from_numpy(np.load(folder / f"{kind}.npy")), report["black"])
              for kind in ("reconstructions", "draws")]  # fmt: skip
    shutil.rmtree(place)
    return *images, report


def as_ours(images: Tensor, black: float) -> Tensor:
    """Images from `black` to 1 as images in [-1, 1]; what lies beyond is clipped to them."""
    return (images.clamp(black, 1) - black) * 2 / (1 - black) - 1


def measured(reconstructions: Tensor, samples: Tensor) -> dict:
    """Errors of the test digits' reconstructions, and both judges' scores of samples."""
    originals, found = scale_images(load_digits("test").images), {}
    for metric in (vae.mse, vae.ssim, vae.psnr):
        parts = [metric(*pair) for pair in batches(CHUNK, originals, reconstructions)]
        found[metric.__name__] = torch.cat(parts).mean().item()
    return found | {"draws": judged_twice(samples)}


def make(name: str, options: argparse.Namespace) -> None:
    """Make a row, unless it is there, and write it."""
    asked = command(name, options.images, options.threads, options.seconds)
    if not options.again and is_there(name, asked, options.seconds, options.out):
        print(f"{name}: is there", flush=True)
        return
    like, here = ROWS[name].like, hardware(torch.device("cpu"))
    if like:
        row = read_json(options.out).get(like, {})
        if not made_by(row, command(like, options.images, options.threads)):
            raise ValueError(f"{name} is compared with {like}, of which there is no row for "
                             f"these options in {options.out}: make it first")  # fmt: skip
        if row["hardware"] != here:
            raise ValueError(f"{like} was trained on {row['hardware']}, and this machine is "
                             f"{here}: make it again here (--again)")  # fmt: skip
        train = partial(peer, name, options.seconds or row["seconds"], options.threads)
    else:
        train = partial(ours, name, options.images, options.threads)
    print(f"{name}: training", flush=True)
    *images, report = train()
    made = {"command": asked} | report | measured(*images)
    rows = read_json(options.out) | {name: made | {"hardware": here, "commit": commit()}}
    write_json(options.out, {key: rows[key] for key in ROWS if key in rows})
    print(f"{name}: {made['images']:,} images in {made['seconds']:.0f} s, MSE {made['mse']:.4f}, "
          f"KL {made['kl']:.1f}, digit-FID {made['draws']['fid']:.1f}", flush=True)  # fmt: skip


def beside_shipped(seconds: float | None) -> None:
    """Train pythae's VAE as long as the shipped model of its latent, and score its samples."""
    ours, drawn = shipped("global_16"), row("generation/global_16, N(0, I)")
    took, here = ours["seconds"]["training"], ours["environment"]
    _, samples, report = peer("pythae", seconds or took, here["threads"])
    report |= {"hardware": hardware(torch.device("cpu")), "scores": judged_twice(samples)}
    report["ours"] = {"seconds": took, "fid": drawn["fid"], "second_fid": drawn["second"]["fid"],
                      "commit": here["commit"]}  # fmt: skip
    write_json(ASSETS / "pythae.json", report)
    print(f"pythae's digit-FID: {report['scores']['fid']:.1f}, ours: {drawn['fid']:.1f}")


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS),
                        metavar="NAME", help=f"these rows: {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--shipped", action="store_true", help="pythae's beside assets/global_16")
    parser.add_argument(
        "--images", type=int, default=IMAGES, help=f"of our training; default: {IMAGES:,}"
    )
    parser.add_argument("--seconds", type=float, help="of a peer's training; default: ours'")
    parser.add_argument("--threads", type=int, default=THREADS, help=f"default: {THREADS}")
    parser.add_argument("--again", action="store_true", help="make rows that are there, too")
    parser.add_argument("--out", type=Path, default=TABLE, help="file of the rows")
    options = parser.parse_args(arguments)
    images, seconds = options.images, options.seconds
    if not (32 <= images <= 60_000 or (images > 60_000 and images % 60_000 == 0)):
        parser.error(f"--images {images}: 32 to 60,000, or a multiple of 60,000")
    if seconds is not None and not 0 < seconds < math.inf:
        parser.error(f"--seconds {seconds:g}: a number above 0")
    if options.threads < 1:
        parser.error(f"--threads {options.threads}: 1 or more")
    if not options.out.absolute().parent.is_dir():
        parser.error(f"--out {options.out}: there is no folder {options.out.parent}")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parsed(arguments)
    try:
        if options.shipped:
            beside_shipped(options.seconds)
            return 0
        for name in ROWS:  # ours before those that are compared with it
            if name in options.only:
                make(name, options)
    except KeyboardInterrupt:
        print(f"peers: interrupted; the rows that were made are in {options.out}", file=sys.stderr)
        return 130
    except (ValueError, OSError) as error:
        print(f"peers: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
