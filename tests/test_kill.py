"""A training that is killed again and again ends as one that was left alone, bit for bit.

    KILLS=200 python -m pytest tests/test_kill.py

Kills come after a random share of the CPU's time, and in turn when half of a checkpoint, of the
metrics or of a GIF is written. After each, every file in the run's folder must be whole.
"""

import os
import random
import shutil
import signal
import sys
import time
from collections import Counter

import pytest
import torch
from helpers import NARROW, resize, start_apart, without_clocks
from PIL import Image, ImageSequence

import vae
from vae.machinery import cli, loop, run
from vae.machinery.folder import is_finished, load_checkpoint, read_metrics
from vae.machinery.frames import Frames

pytestmark = pytest.mark.unix

KILLS = int(os.environ.get("KILLS", "2"))
FLAGS = (
    "train --latent-size 2 --channels 8 16 16 --epochs 2 --batch-size 32 --max-train-images 320 "
    "--max-test-images 60 --projected-images 60 --lpips-images 0 --w-perceptual 0 "
    "--frames 3 --early-evaluations 1 --beta 0.5 --resume --run-dir"
)
TARGETS = ("", "checkpoint.safetensors", "metrics.json", "reconstruction.gif")


def train_until(target, moment, folder):
    """Train, and end after these seconds of CPU, or at a half of the n-th write of `target`.

    A checkpoint comes after every step, so that a kill hits one, and does not cost much.
    """
    resize(pytest.MonkeyPatch(), *NARROW)
    loop.CHECKPOINT_SECONDS = 0
    if not target.endswith(".gif"):  # pictures take the longest
        run.draw = lambda *_: True
    left, replace = [moment], os.replace

    def killed(source, path):
        left[0] -= os.path.basename(path) == target
        if left[0] < 1:
            os.truncate(source, os.path.getsize(source) // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, path)

    if target:
        os.replace = killed
    else:
        signal.setitimer(signal.ITIMER_PROF, moment)  # its signal ends a process at once
    sys.exit(cli.main([*FLAGS.split(), str(folder)]))


def was_killed(folder, target, moment):
    """Train, until a kill at this moment; False if the training ended before."""
    errors = folder.with_name("errors")
    process = start_apart(errors, train_until, target, moment, folder)
    process.join()
    ends = (0, -signal.SIGKILL, -signal.SIGPROF)
    assert process.exitcode in ends, errors.read_text("utf-8")
    return process.exitcode != 0


def check_files(folder):
    """Read every file that is there."""
    if (folder / "model.safetensors").exists():
        vae.VAE.from_pretrained(folder)
    if (folder / "metrics.json").exists():
        read_metrics(folder)
    for name, read in (("frames.npz", Frames.load), ("checkpoint.safetensors", load_checkpoint)):
        if (folder / name).exists():
            read(folder / name)
    for picture in (*folder.glob("[a-z]*.gif"), *folder.glob("[a-z]*.png")):
        with Image.open(picture) as image:
            for frame in ImageSequence.Iterator(image):
                frame.load()


def check_same(alone, killed):
    weights, others = (vae.VAE.from_pretrained(folder).state_dict() for folder in (alone, killed))
    torch.testing.assert_close(weights, others, rtol=0, atol=0)
    rows, others = (without_clocks(read_metrics(path)["history"]) for path in (alone, killed))
    assert rows == others


def test_a_killed_training_goes_on_from_whole_files(tmp_path, undrawn):
    alone, folder, moments = tmp_path / "alone", tmp_path / "killed", random.Random(1)
    begun = time.process_time()
    assert cli.main([*FLAGS.split(), str(alone)]) == 0
    seconds = time.process_time() - begun
    counts, finished = Counter(), 0
    while counts.total() < KILLS:
        target = TARGETS[counts.total() % len(TARGETS)]
        least, most = {"": (0, seconds), "checkpoint.safetensors": (1, 9)}.get(target, (1, 1))
        if was_killed(folder, target, moments.uniform(least, most)):
            counts[target or "random"] += 1
            check_files(folder)
            continue
        check_same(alone, folder)  # it finished first: once more from the start
        shutil.rmtree(folder)
        finished += 1
        assert finished <= KILLS, f"no kill at {target}: nothing with that name is written"
    if not is_finished(folder):
        assert not was_killed(folder, "none", 1)
    check_same(alone, folder)
    print(f"{counts.total()} kills survived, same weights and history: {dict(counts)}")
