import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unix
SCRIPT = """
import sys
import torch
import vae
from vae.machinery import loop

torch.set_num_threads(1)
rank, folder, grid = sys.argv[1:]
config = vae.TrainConfig(
    model=vae.VAEConfig(3, int(grid), channels=(8, 16, 16)), epochs=1, max_train_images=256,
    batch_size=64, max_test_images=50, projected_images=50, lpips_images=10, early_evaluations=0,
    adversarial_start=0.25, w_perceptual=0.05, w_adversarial=0.1, mixed_precision="no",
)
trainer = vae.Trainer(config, f"{folder}/{rank}")
loop.LOG_EVERY = 1
assert loop.complete(trainer, resume=False)
if grid == "7":
    small = vae.PriorConfig(channels=16, blocks=1, steps=1)
    vae.train_prior(f"{folder}/0", vae.PriorTrainConfig(small, epochs=1, max_train_images=256))
else:
    few = {"epochs": 1, "max_train_images": 256, "batch_size": 64, "lpips_images": 4}
    vae.sharpen(f"{folder}/0", config=vae.SharpenConfig(**few, perceptual_share=1.0))
"""
COMPARED = {"mse", "perceptual", "kl", "nll", "generator", "discriminator", "marginal"}


def start(folder: Path, rank: int, processes: int, port: int, grid: int) -> subprocess.Popen:
    """A process of a training, as `torchrun` and `accelerate launch` start it."""
    environment = os.environ | {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    if processes > 1:
        environment |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes)}
        environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-W", "ignore", "-c", SCRIPT, str(rank), str(folder), str(grid)]
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("grid", "close"), [(7, 1e-4), (1, 5e-4)])  # couplings: 24 layers more
def test_two_processes_train_as_one_and_one_of_them_writes(grid, close, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    one, two = tmp_path / "one", tmp_path / "two"
    workers = [start(two, rank, 2, port, grid) for rank in (0, 1)]
    workers.append(start(one, 0, 1, port, grid))
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    assert not (two / "1").exists()  # where the second process would have written
    alone, both = (json.loads((p / "0" / "metrics.json").read_text("utf-8")) for p in (one, two))
    assert (alone["environment"]["processes"], both["environment"]["processes"]) == (1, 2)
    assert both["test"]["images"] == alone["test"]["images"] == 50
    rows = list(zip(alone["history"]["train"], both["history"]["train"], strict=True))
    assert len(rows) == 4
    assert "discriminator" in rows[-1][0]
    for a, b in rows:
        assert set(a) == set(b)
        assert ("marginal" in a) == (grid == 1)
        for name in set(a) & COMPARED:
            assert a[name] == pytest.approx(b[name], rel=close, abs=close), name
    assert both["test"]["sample"]["mse"] == pytest.approx(alone["test"]["sample"]["mse"], rel=1e-3)
    second = "prior_metrics.json" if grid == 7 else "sharp/metrics.json"  # of a second training
    found = [json.loads((p / "0" / second).read_text("utf-8")) for p in (one, two)]
    assert [metrics["environment"]["processes"] for metrics in found] == [1, 2]
    for name in ("loss",) if grid == 7 else ("mse", "perceptual", "generator", "discriminator"):
        alone, both = ([row[name] for row in m["history"]["train"]] for m in found)
        assert len(alone) == 4
        assert alone == pytest.approx(both, rel=1e-2 if grid == 1 else 1e-3), name
