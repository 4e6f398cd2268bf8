"""What several test files share beside fixtures."""

import os
import resource
import signal
from pathlib import Path

import torch

import vae
from vae.training.vae import Trainer

SMALL = (8, 16, 16)
TIMED = ("training_seconds", "images_per_second")  # of a history's rows: never the same twice


def make(**options) -> vae.VAE:
    """A small model, its zero-initialised layers made random so that every path carries."""
    torch.manual_seed(0)
    model = vae.VAE(vae.VAEConfig(channels=SMALL, **options))
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any():
                parameter.normal_(std=0.1)
    return model


def interrupt_at(monkeypatch, *steps):
    """Send Ctrl-C to this process in the middle of these steps."""
    optimize, left = Trainer.optimize, set(steps)

    def interrupted(self):
        if self.step + 1 in left:
            left.discard(self.step + 1)
            os.kill(os.getpid(), signal.SIGINT)
        optimize(self)

    monkeypatch.setattr(Trainer, "optimize", interrupted)


def without_clocks(history):
    return [
        {name: value for name, value in row.items() if name not in TIMED}
        for rows in history.values()
        for row in rows
    ]


def a_gigabyte_more(request):
    """Until the test's end, let this process have at most 1 GiB more of memory than it has now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    request.addfinalizer(lambda: resource.setrlimit(resource.RLIMIT_AS, (soft, hard)))
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 2**30, hard))


def snapshot(module):
    return [parameter.detach().clone() for parameter in module.parameters()]
