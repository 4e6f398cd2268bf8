"""A training that is killed again and again ends as one that was left alone, bit for bit.

    KILLS=200 python -m pytest tests/test_kill.py

Kills come at random moments, and in turn the moment at which a checkpoint, the metrics or a GIF is
being written. After each, every file in the run's folder must be whole.
"""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest
import torch
from helpers import without_clocks
from PIL import Image

import vae
from vae.machinery import cli
from vae.machinery.folder import (
    CHECKPOINT_NAME,
    FRAMES_NAME,
    METRICS_NAME,
    is_finished,
    load_checkpoint,
    read_metrics,
)
from vae.machinery.frames import Frames
from vae.pretrained import TEMPORARY

pytestmark = pytest.mark.unix

KILLS = int(os.environ.get("KILLS", "2"))
FLAGS = (
    "train --latent-size 2 --channels 8 16 16 --epochs 2 --batch-size 32 --max-train-images 640 "
    "--max-test-images 60 --projected-images 60 --lpips-images 0 --w-perceptual 0 "
    "--frames 3 --early-evaluations 1 --beta 0.5 --resume --run-dir"
)
# Checkpoints come often, so that a kill hits one, and a kill does not cost much.
PROGRAM = "import sys; from vae.machinery import cli, loop; "
PROGRAM += "loop.CHECKPOINT_SECONDS = 0.2; sys.exit(cli.main(sys.argv[1:]))"
# None stands for a random moment; the others are files that are being written.
TARGETS = (None, "checkpoint.safetensors", "metrics.json", "reconstruction.gif")


def start(folder):
    command = [sys.executable, "-c", PROGRAM, *FLAGS.split(), str(folder)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def finish(folder):
    """Train to the end, in a process of its own."""
    _, error = (process := start(folder)).communicate()
    assert process.returncode == 0, error


def kill(process, folder, target, wait):
    """Kill the training when it writes `target`, or after `wait` seconds; False if it ended."""
    deadline = time.monotonic() + (120 if target else wait)
    while process.poll() is None and time.monotonic() < deadline:
        if target and any(folder.glob(f"{TEMPORARY}*-{target}")):
            break
        time.sleep(0.0005)
    if process.poll() is not None:
        assert process.returncode == 0, process.stderr.read()
        return False
    process.send_signal(signal.SIGKILL)
    process.communicate()
    return True


def check_files(folder):
    """Read every file that is there."""
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


def check_same(alone, killed):
    weights, others = (vae.VAE.from_pretrained(folder).state_dict() for folder in (alone, killed))
    assert weights.keys() == others.keys()
    for name, tensor in weights.items():
        assert torch.equal(tensor, others[name]), name
    histories = (without_clocks(read_metrics(folder)["history"]) for folder in (alone, killed))
    for row, other in itertools.zip_longest(*histories):
        assert row == other


def test_a_killed_training_goes_on_from_whole_files(tmp_path, undrawn):
    alone, killed, moments = tmp_path / "alone", tmp_path / "killed", random.Random(1)
    begun = time.monotonic()
    assert cli.main([*FLAGS.split(), str(alone)]) == 0
    seconds = 5 + 2 * (time.monotonic() - begun)  # of a process: with its start and its pictures
    counts, finished = Counter(), 0
    while counts.total() < KILLS:
        target = TARGETS[counts.total() % len(TARGETS)]
        if kill(start(killed), killed, target, moments.uniform(0, seconds)):
            counts[target or "random"] += 1
            check_files(killed)
            continue
        check_same(alone, killed)  # it finished first: once more from the start
        shutil.rmtree(killed)
        finished += 1
        assert finished <= KILLS, f"no kill at {target}: nothing with that name is written"
    while not is_finished(killed):
        finish(killed)
    check_same(alone, killed)
    print(f"{counts.total()} kills survived, same weights and history: {dict(counts)}")
