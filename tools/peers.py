"""Train other projects' VAEs for as long as ours, one after the other, and measure all alike.

    python tools/peers.py [--only pythae ...]

Of each latent ours goes first, with MSE and KL alone, and the others get the seconds that it took,
with as many threads. diffusers, pythae and PyTorch's example (all that it needs is torch) are
installed in an environment of their own in `runs/peers`, where `peer_worker.py` trains them. A row
that is there is not made again. The result is `assets/peers.json`.
"""

import argparse
import math
import shlex
import shutil
import sys
import venv
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from common import ASSETS, ROOT, Part, keep_row, read_json, row, run, shipped
from scoring import CHUNK, SAMPLES, judged_twice, seeded
from torch import Tensor
from trainings import NO_TERMS, SHORT

import vae
from vae import VAE, load_digits, scale_images
from vae.data import batches
from vae.machinery.folder import read_metrics
from vae.machinery.machine import commit, hardware
from vae.pretrained import write_json

FOLDER = ROOT / "runs" / "peers"
WORKER = Path(__file__).with_name("peer_worker.py")
THREADS = 1  # of everybody
ALIKE = f"{SHORT} --lpips-images 0 --mixed-precision no"  # nobody computes in half precision
RATES = (3e-4, 1e-3, 3e-3)  # of AdamW, where it is searched
PACKAGES = "torch numpy setuptools diffusers==0.42.1 pythae==0.1.2"


class Row(NamedTuple):
    """Ours, which has `flags`; or a peer, which trains as long as `like` did."""

    title: str
    latent: str
    flags: str = ""
    like: str = ""
    rates: tuple[float | None, ...] = (None,)  # the best is kept; None: the peer's own


OURS = "this repository, MSE + KL"
ROWS = {
    "ours_2_on_7x7": Row(OURS, "2 on 7×7", f"--latent-size 2 --beta 0.1 {NO_TERMS}"),
    "diffusers_calibrated": Row("diffusers' AutoencoderKL, the same loss", "2 on 7×7",
                                like="ours_2_on_7x7", rates=RATES),
    "diffusers_script_loss": Row("the same with the loss of diffusers' training script", "2 on 7×7",
                                 like="ours_2_on_7x7", rates=RATES),
    "diffusers_script": Row("the same with that script's learning rate and batch too", "2 on 7×7",
                            like="ours_2_on_7x7"),
    "ours_16_on_1x1": Row(OURS, "16 on 1×1", "--latent-size 16 --latent-grid 1"),
    "pythae": Row("pythae's VAE", "16 on 1×1", like="ours_16_on_1x1"),
    "ours_20_on_1x1": Row(OURS, "20 on 1×1", "--latent-size 20 --latent-grid 1"),
    "pytorch_example": Row("PyTorch's VAE example", "20 on 1×1", like="ours_20_on_1x1"),
}  # fmt: skip


def parts() -> list[Part]:
    """Every row, and pythae's VAE beside the shipped model of its latent."""
    rows = [Part(f"peers/{name}", partial(is_there, name), partial(make, name), command(name))
            for name in ROWS]  # fmt: skip
    return [*rows, Part("pythae", (ASSETS / "pythae.json").is_file, beside_shipped)]


def training_of(name: str) -> str:
    """The training of one of our rows."""
    return f"python -m vae train {ROWS[name].flags} {ALIKE}"


def command(name: str) -> str:
    return f"python tools/peers.py --only {name}"


def is_there(name: str) -> bool:
    """Whether the row is there, and a peer's had the seconds of ours as it is now."""
    made, like = row(f"peers/{name}"), ROWS[name].like
    return bool(made) and (not like or made["given_seconds"] == row(f"peers/{like}").get("seconds"))


def python_of_peers() -> Path:
    """The Python of the peers' environment, which is made if it is not there."""
    python, mark = FOLDER / "venv" / "bin" / "python", FOLDER / "installed.txt"
    if not mark.is_file() or mark.read_text("utf-8") != PACKAGES:
        print(f"installing {PACKAGES} in {FOLDER.relative_to(ROOT)}", flush=True)
        venv.create(FOLDER / "venv", clear=True, symlinks=True, with_pip=True)
        quiet = "--quiet --disable-pip-version-check"
        run(f"python -m pip install {quiet} {PACKAGES}", program=python)
        mark.write_text(PACKAGES, "utf-8")
    return python


def train(command: str, threads: int, program: str | Path = sys.executable) -> None:
    """Run a training with some threads and no network."""
    run(command, program, OMP_NUM_THREADS=str(threads), HF_HUB_OFFLINE="1")


def ours(name: str) -> tuple[Tensor, Tensor, dict]:
    """Train ours: reconstructions of the test digits and samples, in [-1, 1], and a report."""
    folder, training = FOLDER / "rows" / name, training_of(name)
    shutil.rmtree(folder, ignore_errors=True)
    train(f"{training} --run-dir {shlex.quote(str(folder))}", THREADS)
    model, metrics = VAE.from_pretrained(folder), read_metrics(folder)
    config, here = metrics["config"], metrics["environment"]
    digits = load_digits("test").images
    noise = torch.randn(len(digits), *model.config.latent_shape, generator=seeded())
    with torch.no_grad():
        made = [model(scale_images(part), None, eps)[0]
                for part, eps in batches(CHUNK, digits, noise)]  # fmt: skip
    report = {
        "training": training, "parameters": sum(p.numel() for p in model.parameters()),
        "seconds": metrics["seconds"]["training"],
        "images": metrics["history"]["train"][-1]["step"] * config["batch_size"],
        "batch_size": config["batch_size"], "learning_rate": config["learning_rate"],
        "kl": metrics["test"]["kl"], "versions": {"torch": here["torch"]},
        "threads": here["threads"],
    }  # fmt: skip
    return torch.cat(made), model.sample(SAMPLES, None, seeded()), report


def peer(name: str, seconds: float, threads: int = THREADS) -> tuple[Tensor, Tensor, dict]:
    """Train a peer, the same as of `ours`; of several learning rates that of the lowest loss.

    The loss is its own, of the test digits: if this favours somebody, it is the peer.
    """
    reports, place, python = {}, FOLDER / "rows" / name, python_of_peers()
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    for split in ("train", "test"):
        np.save(place / f"{split}.npy", load_digits(split).images.numpy())
    for rate in ROWS[name].rates:
        (folder := place / f"{rate or 0:g}").mkdir()
        words = [WORKER, name, place, folder, seconds, *(["--learning-rate", rate] if rate else [])]
        train(shlex.join(["python", "-I", *map(str, words)]), threads, python)
        reports[folder] = read_json(folder / "report.json")
    losses = {folder: report["loss"] for folder, report in reports.items()}
    finite = {folder: loss for folder, loss in losses.items() if math.isfinite(loss)}
    if not finite:
        raise SystemExit(f"{name} diverged at every learning rate: its losses are {losses}")
    folder = min(finite, key=finite.get)
    report = reports[folder] | {"given_seconds": seconds}
    if len(losses) > 1:
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


def make(name: str) -> None:
    """Make a row, after that of ours which it is compared with."""
    like, here = ROWS[name].like, hardware(torch.device("cpu"))
    if like:
        if not is_there(like):
            make(like)
        theirs = row(f"peers/{like}")
        if theirs["hardware"] != here:
            raise SystemExit(f"{like} was trained on {theirs['hardware']}, and this machine is "
                             f"{here}: delete its row of assets/peers.json")  # fmt: skip
    print(f"{name}: training", flush=True)
    *images, report = peer(name, theirs["seconds"]) if like else ours(name)
    made = {"command": command(name)} | report | measured(*images)
    keep_row(f"peers/{name}", made | {"hardware": here, "commit": commit()})
    print(f"{name}: {made['images']:,} images in {made['seconds']:.0f} s, MSE {made['mse']:.4f}, "
          f"KL {made['kl']:.1f}, digit-FID {made['draws']['fid']:.1f}", flush=True)  # fmt: skip


def beside_shipped() -> None:
    """Train pythae's VAE as long as the shipped model of its latent, and score its samples."""
    ours, drawn = shipped("global_16"), row("generation/global_16, N(0, I)")
    took, here = ours["seconds"]["training"], ours["environment"]
    _, samples, report = peer("pythae", took, here["threads"])
    report |= {"hardware": hardware(torch.device("cpu")), "scores": judged_twice(samples)}
    report["ours"] = {"seconds": took, "fid": drawn["fid"], "second_fid": drawn["second"]["fid"],
                      "commit": here["commit"]}  # fmt: skip
    write_json(ASSETS / "pythae.json", report)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=ROWS, metavar="NAME",
                        help=f"these rows: {', '.join(ROWS)}")  # fmt: skip
    only = parser.parse_args(arguments).only
    for name in ROWS:  # ours before those that are compared with it
        if name in only and not is_there(name):
            make(name)


if __name__ == "__main__":
    main()
