"""Train other projects' VAEs for as long as ours, one after the other, and measure all alike.

    python benchmarks/peers.py [--only pythae ...]

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

import numpy as np
import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path += [str(ROOT), str(ROOT / "tools"), str(Path(__file__).parent)]

from common import read_json  # noqa: E402
from generation import judged_twice  # noqa: E402
from latents import CHUNK, DRAWS, seeded  # noqa: E402
from peer_rows import IMAGES, ROWS, TABLE, THREADS, command, is_there, training_of  # noqa: E402
from peer_worker import source_of  # noqa: E402

import vae  # noqa: E402
from vae import VAE, load_digits  # noqa: E402
from vae.data import batches, scale_images  # noqa: E402
from vae.training.machine import Machine  # noqa: E402
from vae_store.environment import describe_environment  # noqa: E402
from vae_store.files import write_json  # noqa: E402
from vae_store.folder import read_metrics  # noqa: E402

FOLDER, WORKER = ROOT / "runs" / "peers", ROOT / "benchmarks" / "peer_worker.py"
PACKAGES = {  # of each environment; the first's torch is everybody's
    "torch": ("torch", "numpy", "setuptools"),
    "diffusers": ("diffusers==0.42.1",),
    "pythae": ("pythae==0.1.2",),
}


def python_of(environment: str) -> Path:
    """The Python of an environment, which is made if it is not there."""
    place = FOLDER / environment
    python, mark = place / "venv" / "bin" / "python", place / "installed.txt"
    wanted = "\n".join(PACKAGES[environment])
    if mark.is_file() and mark.read_text("utf-8") == wanted:
        return python
    torchs = python_of("torch") if environment != "torch" else None
    print(f"installing {', '.join(PACKAGES[environment])} in {place.relative_to(ROOT)}", flush=True)
    venv.create(place / "venv", clear=True, symlinks=True, with_pip=True)
    if torchs:  # gigabytes that need not be there twice
        (packages_of(python) / "torch.pth").write_text(f"{packages_of(torchs)}\n", "utf-8")
    try:
        quiet = ("--quiet", "--disable-pip-version-check")
        subprocess.run([python, "-m", "pip", "install", *quiet, *PACKAGES[environment]], check=True)
    except subprocess.CalledProcessError as error:
        raise OSError(f"pip could not install {wanted!r} in {place}: see above") from error
    mark.write_text(wanted, "utf-8")
    return python


def packages_of(python: Path) -> Path:
    """Where a Python's packages are."""
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    asked = subprocess.run([python, "-I", "-c", ask], check=True, capture_output=True, text=True)
    return Path(asked.stdout.strip())


def start(arguments: list[str | Path], threads: int, what: str) -> None:
    """Run a Python program with so many threads and no network. Raises `OSError` if it fails."""
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    try:
        subprocess.run([str(part) for part in arguments], check=True, cwd=ROOT, env=environment)
    except subprocess.CalledProcessError as error:
        if error.returncode in (130, -2):
            raise KeyboardInterrupt from error
        raise OSError(f"{what} failed (exit status {error.returncode}): see above") from error


def ours(name: str, images: int, threads: int) -> tuple[Tensor, Tensor, dict]:
    """Train ours: reconstructions of the test digits and draws, in [-1, 1], and a report."""
    folder, training = FOLDER / "rows" / name, training_of(name, images)
    shutil.rmtree(folder, ignore_errors=True)
    words = shlex.split(training)[1:]
    start([sys.executable, *words, "--run-dir", folder], threads, f"the training of {name}")
    model, metrics = VAE.from_pretrained(folder), read_metrics(folder)
    config, last = metrics["config"], metrics["history"]["train"][-1]
    digits, made, kl = load_digits("test").images, [], []
    noise = torch.randn(len(digits), *model.config.latent_shape, generator=seeded())
    with torch.no_grad():
        for part, eps in batches(CHUNK, digits, noise):
            y, posterior = model(scale_images(part), None, eps)
            made.append(y)
            kl.append(posterior.kl(eps))
    report = {
        "training": training,
        "parameters": sum(p.numel() for p in model.parameters()),
        "source": source_of(model),
        "images": last["step"] * config["batch_size"],
        "seconds": metrics["seconds"]["training"],
        "batch_size": config["batch_size"],
        "learning_rate": config["learning_rate"],
        "kl": torch.cat(kl).double().mean().item(),
        "versions": {"torch": metrics["environment"]["torch"]},
        "threads": metrics["environment"]["threads"],
    }
    return torch.cat(made), model.sample(DRAWS, None, seeded()), report


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
    images = [
        as_ours(torch.from_numpy(np.load(folder / f"{kind}.npy")), report["black"])
        for kind in ("reconstructions", "draws")
    ]
    shutil.rmtree(place)
    return *images, report


def as_ours(images: Tensor, black: float) -> Tensor:
    """Images from `black` to 1 as images in [-1, 1]; what lies beyond is clipped to them."""
    return (images.clamp(black, 1) - black) * 2 / (1 - black) - 1


def measured(reconstructions: Tensor, draws: Tensor) -> dict:
    """Errors of the test digits' reconstructions, and both judges' scores of draws."""
    originals, found = scale_images(load_digits("test").images), {}
    for metric in (vae.mse, vae.ssim, vae.psnr):
        parts = [metric(*pair) for pair in batches(CHUNK, originals, reconstructions)]
        found[metric.__name__] = torch.cat(parts).mean().item()
    return found | {"draws": judged_twice(draws)}


def make(name: str, options: argparse.Namespace) -> None:
    """Make a row, unless it is there, and write it."""
    asked = command(name, options.images, options.threads, options.seconds)
    if not options.again and is_there(name, asked, options.seconds, options.out):
        print(f"{name}: is there", flush=True)
        return
    here, row = describe_environment(Machine("no")), ROWS[name]
    if row.like:
        like = read_json(options.out).get(row.like, {})
        if like.get("command") != command(row.like, options.images, options.threads):
            raise ValueError(f"{name} is compared with {row.like}, of which there is no row for "
                             f"these options in {options.out}: make it first")  # fmt: skip
        if like["hardware"] != here["hardware"]:
            raise ValueError(f"{row.like} was trained on {like['hardware']}, and this machine is "
                             f"{here['hardware']}: make it again here (--again)")  # fmt: skip
        train = partial(peer, name, options.seconds or like["seconds"], options.threads)
    else:
        train = partial(ours, name, options.images, options.threads)
    print(f"{name}: training", flush=True)
    *images, report = train()
    made = {"command": asked} | report | measured(*images)
    rows = read_json(options.out) | {
        name: made | {"hardware": here["hardware"], "commit": here["commit"]}
    }
    write_json(options.out, {key: rows[key] for key in ROWS if key in rows})
    print(f"{name}: {made['images']:,} images in {made['seconds']:.0f} s, MSE {made['mse']:.4f}, "
          f"KL {made['kl']:.1f}, digit-FID {made['draws']['fid']:.1f}", flush=True)  # fmt: skip


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(ROWS), default=list(ROWS),
                        metavar="NAME", help=f"these rows: {', '.join(ROWS)}")  # fmt: skip
    parser.add_argument("--images", type=int, default=IMAGES,
                        help=f"that ours sees; default: {IMAGES:,}")  # fmt: skip
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
