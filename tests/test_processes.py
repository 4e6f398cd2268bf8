"""Two processes, started as torchrun starts them, train as one does, and say nothing more."""

import functools
import json
import os
import socket
from pathlib import Path

import pytest
from helpers import FINISHED, SMALL, make, small_prior, start_apart

import vae
from vae.machinery import datasets, loop, run

pytestmark = pytest.mark.unix
RUNS = ("7 1.0/metrics.json", "1 1.0/metrics.json", "1 0.0/metrics.json",
        "7 1.0/prior_metrics.json", "sharp/metrics.json")  # fmt: skip
CLOSE = 2e-3  # relative; sums are added in another order
APART = ("accuracy_real", "accuracy_fake", "images_per_second", "gradient_norm")


def train(folder: Path, rank: int, processes: int, port: int) -> None:
    """Five trainings, of which the first process writes what they leave."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if processes > 1:
        values = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "MASTER_PORT": port}
        os.environ |= {"MASTER_ADDR": "127.0.0.1"} | {k: str(v) for k, v in values.items()}
    loop.LOG_EVERY, run.draw = 1, lambda *_: True  # no pictures, which take the longest
    datasets.load_mnist = functools.cache(datasets.load_mnist)  # unpacked once for all trainings
    few = {"epochs": 1, "max_train_images": 48, "batch_size": 16}
    for grid, beta in ((7, 1.0), (1, 1.0), (1, 0.0)):
        lpips = {"lpips_images": 2, "w_perceptual": 0.05} if grid == 7 else {"lpips_images": 0}
        config = vae.TrainConfig(
            vae.VAEConfig(3, grid, couplings=2, channels=SMALL), beta=beta, max_test_images=20,
            projected_images=20, early_evaluations=0, frames=1, coupling_steps=0.5,
            adversarial_start=0.25, w_adversarial=0.1, **lpips, **few,
        )  # fmt: skip
        trainer = vae.Trainer(config, folder / str(rank) / f"{grid} {beta}")
        assert loop.train(trainer, resume=False)
    vae.train_prior(folder / "0" / "7 1.0", small_prior(**few))
    # of one VAE: two that differ by rounding would be driven apart
    vae.sharpen(folder / "../vae", folder / "0" / "sharp",
                vae.SharpenConfig(**few, lpips_images=2, frames=1))  # fmt: skip


def test_two_processes_train_as_one_quietly_and_one_of_them_writes(tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = tmp_path / "one", tmp_path / "two"
    make(latent_size=3, latent_grid=1, couplings=2).save_pretrained(tmp_path / "vae")
    (tmp_path / "vae" / "metrics.json").write_text(json.dumps(FINISHED), "utf-8")
    workers = {}
    for folder, rank, processes in ((two, 0, 2), (two, 1, 2), (one, 0, 1)):
        said = tmp_path / f"{processes} {rank}"
        workers[said] = start_apart(said, train, folder, rank, processes, port)
    for said, worker in workers.items():
        worker.join()
        errors = said.read_text("utf-8")
        assert worker.exitcode == 0, errors
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
