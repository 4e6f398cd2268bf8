"""Who is compared with us for the same seconds of training: the rows of `assets/peers.json`.

`benchmarks/peers.py` makes them.
"""

import shlex
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import ASSETS, Part, read_json, run
from models import PLAIN

TABLE = ASSETS / "peers.json"
IMAGES, THREADS = 24_000, 1  # that ours sees; of everybody
# Nothing is measured on the way, and nobody computes in half precision.
ALIKE = "--early-evaluations 0 --projected-images 10 --lpips-images 0 --mixed-precision no"
RATES = (3e-4, 1e-3, 3e-3)  # of AdamW, where it is searched
MEASURE_SECONDS = 150  # 20,000 images made, and judged twice
TRAINING_SECONDS = 140  # where no record is there


@dataclass(frozen=True)
class Row:
    """Ours, which has `flags`; or a peer, which trains as long as `like` did."""

    title: str
    latent: str
    flags: str = ""
    like: str = ""
    environment: str = ""
    rates: tuple[float | None, ...] = (None,)  # the best is kept; None: the peer's own


ROWS = {
    "ours_2_on_7x7": Row(
        "this repository, MSE + KL", "2 on 7×7", f"--latent-size 2 --beta 0.1 {PLAIN}"
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


def training_of(name: str, images: int = IMAGES) -> str:
    """The training of one of our rows. `images`: at most a pass, or whole passes of 60,000."""
    passes = max(1, images // 60_000)
    seen = f"--epochs {passes} --max-train-images {images // passes}"
    return f"python -m vae train {ROWS[name].flags} {seen} {ALIKE}"


def command(name: str, images: int = IMAGES, threads: int = THREADS,
            seconds: float | None = None) -> str:  # fmt: skip
    """What makes a row; `seconds`: of a peer, if they aren't those of ours."""
    own = seconds is not None and bool(ROWS[name].like)
    given = {"images": (images, images != IMAGES), "threads": (threads, threads != THREADS),
             "seconds": (f"{seconds or 0:g}", own)}  # fmt: skip
    flags = [f" --{key} {value}" for key, (value, stated) in given.items() if stated]
    return f"python benchmarks/peers.py --only {shlex.quote(name)}{''.join(flags)}"


def is_there(name: str, made_by: str, seconds: float | None = None, table: Path = TABLE) -> bool:
    """Whether the row was made by that command, and a peer's beside ours as it is now."""
    rows = read_json(table)
    row, like = rows.get(name, {}), ROWS[name].like
    if seconds is None and like:
        seconds = rows.get(like, {}).get("seconds")
    return row.get("command") == made_by and (not like or row["given_seconds"] == seconds)


def parts() -> list[Part]:
    """Every row."""
    found = []
    for name, row in ROWS.items():
        recorded = read_json(TABLE).get(row.like or name, {}).get("seconds", TRAINING_SECONDS)
        seconds, made_by = recorded * len(row.rates) + MEASURE_SECONDS, command(name)
        done, make = partial(is_there, name, made_by), partial(run, made_by)
        found.append(Part("compare", f"peers/{name}", seconds, done, make, made_by))
    return found
