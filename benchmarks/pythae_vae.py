"""Train pythae's VAE for as long as ours was trained, on this machine; our judges score its draws.

    python benchmarks/pythae_vae.py

pythae 0.1.2 (C. Chadebec, L. Vincent, S. Allassonniere, "Pythae", NeurIPS 2022; Apache 2.0) is
installed in an environment of its own, `runs/pythae/venv`: nothing here imports it but the worker
below. Its MNIST convolutional networks, latent size 16, its default loss and training, with as many
threads and seconds as assets/global_16 had. The result goes to `assets/pythae.json`.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import time
import venv
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "runs" / "pythae"
PACKAGES = ["pythae==0.1.2", "torch", "numpy", "setuptools"]
LATENT_SIZE, DRAWS = 16, 10_000


def train_and_draw(seconds: float) -> None:
    """The worker, in pythae's environment: train until the time is over, then draw."""
    import torch
    from pythae.models import VAE, VAEConfig
    from pythae.models.nn.benchmarks.mnist import Decoder_Conv_AE_MNIST, Encoder_Conv_VAE_MNIST
    from pythae.pipelines import TrainingPipeline
    from pythae.trainers import BaseTrainerConfig
    from pythae.trainers.training_callbacks import TrainingCallback

    class TimeIsOver(Exception):
        pass

    class Clock(TrainingCallback):
        started, seconds, steps = 0.0, 0.0, 0

        def on_train_begin(self, training_config, **kwargs):
            self.started = time.perf_counter()

        def on_train_step_end(self, training_config, **kwargs):
            self.steps += 1
            self.seconds = time.perf_counter() - self.started
            if self.seconds > seconds:
                raise TimeIsOver

    torch.manual_seed(0)
    images = np.load(FOLDER / "train.npy").astype(np.float32) / 255
    config = VAEConfig(input_dim=(1, 28, 28), latent_dim=LATENT_SIZE)
    encoder, decoder = Encoder_Conv_VAE_MNIST(config), Decoder_Conv_AE_MNIST(config)
    model, clock = VAE(config, encoder, decoder), Clock()
    settings = BaseTrainerConfig(output_dir=str(FOLDER / "output"), no_cuda=True)
    pipeline = TrainingPipeline(model=model, training_config=settings)
    with contextlib.suppress(TimeIsOver):
        pipeline(train_data=images, callbacks=[clock])
    model.eval()
    with torch.no_grad():
        z = torch.randn(DRAWS, LATENT_SIZE, generator=torch.Generator().manual_seed(0))
        drawn = [model.decoder(part).reconstruction for part in z.split(500)]
    np.save(FOLDER / "draws.npy", torch.cat(drawn).numpy())
    report = {
        "steps": clock.steps,
        "batch_size": settings.per_device_train_batch_size,
        "learning_rate": settings.learning_rate,
        "parameters": sum(p.numel() for p in model.parameters()),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "seconds": clock.seconds,
    }
    (FOLDER / "report.json").write_text(json.dumps(report))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="default: those of assets/global_16")
    parser.add_argument("--worker", action="store_true", help="used by this script itself")
    options = parser.parse_args()
    if options.worker:
        train_and_draw(options.seconds)
        return

    import torch

    sys.path.append(str(ROOT / "tools"))
    from common import read_json
    from generation import judged_twice

    from vae import load_digits
    from vae.training.machine import Machine, describe_environment
    from vae_store.files import write_json
    from vae_store.folder import read_metrics

    ours = read_metrics(ROOT / "assets" / "global_16")
    drawn_by_ours = read_json(ROOT / "assets" / "generation.json")["global_16, N(0, I)"]
    seconds = options.seconds or ours["seconds"]["training"]
    python = FOLDER / "venv" / "bin" / "python"
    if not python.is_file():
        venv.create(FOLDER / "venv", with_pip=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    np.save(FOLDER / "train.npy", load_digits("train").images.numpy())
    worker = [python, __file__, "--worker", "--seconds", str(seconds)]
    threads = {"OMP_NUM_THREADS": str(ours["environment"]["threads"])}
    subprocess.run(list(map(str, worker)), check=True, env=os.environ | threads)
    drawn = torch.from_numpy(np.load(FOLDER / "draws.npy"))
    scores = judged_twice(drawn.clamp(0, 1) * 2 - 1)
    report = json.loads((FOLDER / "report.json").read_text("utf-8"))
    here = describe_environment(Machine("no"))
    report |= {"hardware": here["hardware"], "scores": scores}
    report["ours"] = {"seconds": ours["seconds"]["training"], "fid": drawn_by_ours["fid"],
                      "second_fid": drawn_by_ours["second"]["fid"],
                      "commit": ours["environment"]["commit"]}  # fmt: skip
    write_json(ROOT / "assets" / "pythae.json", report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
