"""Two processes, started as torchrun starts them, train as one does, and say nothing more."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from helpers import FINISHED, make

pytestmark = pytest.mark.unix
SCRIPT = """
import sys
import torch
import vae
from vae.machinery import loop, run

torch.set_num_threads(1)
loop.LOG_EVERY, run.draw = 1, lambda *_: True  # no pictures, which take the longest
rank, folder = sys.argv[1:]
few = {"epochs": 1, "max_train_images": 48, "batch_size": 16}
for grid, beta in ((7, 1.0), (1, 1.0), (1, 0.0)):
    lpips = {"lpips_images": 2, "w_perceptual": 0.05} if grid == 7 else {"lpips_images": 0}
    config = vae.TrainConfig(
        vae.VAEConfig(3, grid, couplings=2, channels=(8, 16, 16)), beta=beta, max_test_images=20,
        projected_images=20, early_evaluations=0, frames=1, coupling_steps=0.5,
        adversarial_start=0.25, w_adversarial=0.1, **lpips, **few,
    )
    # only the first process may write
    assert loop.train(vae.Trainer(config, f"{folder}/{rank}/{grid} {beta}"), resume=False)
vae.train_prior(f"{folder}/0/7 1.0",
                vae.PriorTrainConfig(vae.PriorConfig(channels=16, blocks=1, steps=1), **few))
# of one VAE: two that differ by rounding would be driven apart
vae.sharpen(f"{folder}/../vae", f"{folder}/0/sharp",
            vae.SharpenConfig(**few, lpips_images=2, frames=1))
"""
RUNS = ("7 1.0/metrics.json", "1 1.0/metrics.json", "1 0.0/metrics.json",
        "7 1.0/prior_metrics.json", "sharp/metrics.json")  # fmt: skip
CLOSE = 2e-3  # relative; sums are added in another order
APART = ("accuracy_real", "accuracy_fake", "images_per_second", "gradient_norm")


def start(folder: Path, rank: int, processes: int, port: int) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    if processes > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", SCRIPT, str(rank), str(folder)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def test_two_processes_train_as_one_quietly_and_one_of_them_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = tmp_path / "one", tmp_path / "two"
    make(latent_size=3, latent_grid=1, couplings=2).save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "metrics.json").write_text(json.dumps(FINISHED), "utf-8")
    workers = [start(two, rank, 2, port) for rank in (0, 1)] + [start(one, 0, 1, port)]
    for worker in workers:
        _, errors = worker.communicate()
        assert worker.returncode == 0, errors
        assert "warn" not in errors.lower(), errors
    assert not (two / "1").exists()  # where the second process would have written
    for name in RUNS:
        alone, both = (json.loads((p / "0" / name).read_text("utf-8")) for p in (one, two))
        assert [m["environment"]["processes"] for m in (alone, both)] == [1, 2]
        rows = zip(alone["history"]["train"], both["history"]["train"], strict=True)
        for row, other in rows:
            assert row.keys() == other.keys()
            for term in row.keys() - set(APART):
                assert row[term] == pytest.approx(other[term], rel=CLOSE, abs=CLOSE), (name, term)
        assert len(alone["history"]["train"]) == 3
        if "test" in alone:
            ours, theirs = (m["test"]["sample"]["mse"] for m in (alone, both))
            assert ours == pytest.approx(theirs, rel=CLOSE)
