"""The end of a training of a VAE: its couplings alone, fitted to the codes as they are then."""

import time

import torch
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from vae_store.progress import Bar

from ..checks import gaussian
from ..data import Digits
from ..model import VAE
from .config import TrainConfig
from .latents import encode
from .machine import seeded_generator, send
from .optimizer import Muon, one_cycle
from .step import CODES

WARMUP = 0.05  # share of the steps in which the learning rate rises
WEIGHT_DECAY = 0.2  # more than before: they would learn these codes by heart


def fit_couplings(vae: VAE, digits: Digits, config: TrainConfig, steps: int) -> float:
    """Fit the couplings of a coupled posterior to the codes of `digits`; return the seconds.

    With encoder and decoder as they are, the ELBO depends on the couplings by E_q(u|x) [log p(u)]
    alone, the likelihood of codes under the map. That is what these steps raise, each on draws for
    CODES images. Beside the reconstruction's gradient it was lost in the noise. (A density fitted
    afterwards: Ghosh et al., "From Variational to Deterministic Autoencoders", 2020.)
    Raises `FloatingPointError`.
    """
    started, couplings = time.perf_counter(), vae.couplings.requires_grad_(True)
    mean, std, labels = encode(vae, *digits)
    optimizer = Muon(couplings, config.learning_rate, WEIGHT_DECAY)
    schedule, nll = LambdaLR(optimizer, one_cycle(WARMUP, steps)), torch.zeros(())
    for step in Bar(range(steps), desc="couplings", unit="step"):
        generator = seeded_generator(config.seed, 2, step)
        chosen = send(torch.randint(len(mean), (CODES,), generator=generator), vae.device)
        noise = send(gaussian(CODES, *mean.shape[1:], generator=generator), vae.device)
        with torch.no_grad():
            given = labels[chosen] if vae.config.num_classes else None
            token = vae.class_token(given, CODES, values=False)
        nll = couplings.marginal_nll(mean[chosen] + std[chosen] * noise, token).mean()
        nll.backward()
        nn.utils.clip_grad_norm_(couplings.parameters(), config.clip_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
    couplings.requires_grad_(False)
    if not nll.isfinite():
        raise FloatingPointError(f"marginal is {nll.item()} after {steps} steps of the couplings")
    return time.perf_counter() - started
