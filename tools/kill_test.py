"""Kill a training again and again, resume it, and compare it with one that was left alone.

    python tools/kill_test.py [--kills 25] [--seed 0]

Kills come at random moments, and in turn the moment at which a checkpoint, the metrics or a GIF is
being written. After each, every file in the run's folder must be whole. At the end weights and
history must be those of the training that was left alone, bit for bit.
"""

import argparse
import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch
from PIL import Image

import vae
from vae_show.frames import Frames
from vae_store.checkpoint import CHECKPOINT_NAME, load_checkpoint
from vae_store.files import TEMPORARY
from vae_store.folder import FRAMES_NAME, METRICS_NAME, is_finished, read_metrics

FLAGS = (
    "train --latent-size 2 --channels 8 16 16 --epochs 2 --batch-size 32 --max-train-images 960 "
    "--max-test-images 60 --projected-images 60 --lpips-images 10 --perceptual-share 0.05 "
    "--beta 0.5 --resume --run-dir"
)
# Checkpoints come often, so that a kill hits one, and a kill does not cost much.
PROGRAM = "import sys; from vae import cli; from vae.training import loop; "
PROGRAM += "loop.CHECKPOINT_SECONDS = 0.2; sys.exit(cli.main(sys.argv[1:]))"
# None: a random moment; else a file that is being written
TARGETS = (None, "checkpoint.safetensors", "metrics.json", "reconstruction.gif")
TIMED = ("training_seconds", "images_per_second")  # of a history's rows: never the same twice


def start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-c", PROGRAM, *FLAGS.split(), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def kill(process: subprocess.Popen, folder: Path, target: str | None, wait: float) -> bool:
    """Kill the training when it writes `target`, or after `wait` seconds; False if it ended."""
    deadline = time.monotonic() + (120 if target else wait)
    while process.poll() is None and time.monotonic() < deadline:
        if target and any(folder.glob(f"{TEMPORARY}*-{target}")):
            break
        time.sleep(0.0005)
    if process.poll() is not None:
        if process.returncode:
            raise RuntimeError(process.stderr.read())
        return False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return True


def check_files(folder: Path) -> None:
    """Raise unless every file that is there is whole."""
    if (folder / "model.safetensors").exists():
        vae.VAE.from_pretrained(folder)
    if (folder / METRICS_NAME).exists():
        read_metrics(folder)
    for name, read in ((FRAMES_NAME, Frames.load), (CHECKPOINT_NAME, load_checkpoint)):
        if (folder / name).exists():
            read(folder / name)
    for picture in (*folder.glob("[a-z]*.gif"), *folder.glob("[a-z]*.png")):
        with Image.open(picture) as image:
            for frame in range(getattr(image, "n_frames", 1)):
                image.seek(frame)
                image.load()


def result(folder: Path) -> tuple[dict, list]:
    """Weights, and history without what is measured with a clock."""
    history = [
        {name: value for name, value in row.items() if name not in TIMED}
        for rows in read_metrics(folder)["history"].values()
        for row in rows
    ]
    return vae.VAE.from_pretrained(folder).state_dict(), history


def run(kills: int, seed: int, parent: Path) -> Counter:
    """Do it; returns how many kills there were at each target. Raises on any difference."""
    moments = random.Random(seed)
    alone, killed = parent / "alone", parent / "killed"
    begun = time.monotonic()
    _, error = (process := start(alone)).communicate()
    if process.returncode:
        raise RuntimeError(error)
    seconds = time.monotonic() - begun
    counts, finished = Counter(), 0
    while counts.total() < kills:
        target = TARGETS[counts.total() % len(TARGETS)]
        if kill(start(killed), killed, target, moments.uniform(0, seconds)):
            counts[target.split(".")[0] if target else "random"] += 1
            check_files(killed)
        else:  # it finished first: once more from the start
            compare(alone, killed)
            shutil.rmtree(killed)
            finished += 1
            if finished > kills:
                raise RuntimeError(f"no kill at {target}: nothing with that name is written")
    while not is_finished(killed):
        start(killed).communicate()
    compare(alone, killed)
    return counts


def compare(alone: Path, killed: Path) -> None:
    (weights, history), (others, other_history) = result(alone), result(killed)
    for name, tensor in weights.items():
        if not torch.equal(tensor, others[name]):
            raise AssertionError(f"{name} differs")
    for row, other in itertools.zip_longest(history, other_history):
        if row != other:
            raise AssertionError(f"the history differs: {row} alone, {other} after kills")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as parent:
        counts = run(options.kills, options.seed, Path(parent))
    print(f"{counts.total()} kills survived, same weights and history: {json.dumps(counts)}")


if __name__ == "__main__":
    main()
