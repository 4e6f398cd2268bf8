"""One step of each training: where the losses are put together and sent backward."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import losses
from ..perceptual import LPIPS
from ..prior import LatentPrior
from .config import PriorTrainConfig, SharpenConfig, TrainConfig
from .machine import Machine

PENALTY = (0.05, 1e-4, 1.0)  # weight of R1: at the start, least, most
CODES = 512  # that are remembered for the marginal KL
PENALTY_RATE = 0.1  # of its logarithm, for a step and an error in accuracy of 1


@dataclass
class Networks:
    """What the step of a VAE, or of a decoder that is sharpened, works with."""

    model: nn.Module  # VAE or decoder, and the discriminator, as several processes share them
    discriminator: nn.Module
    optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    lpips: LPIPS | None
    memory: dict[str, Tensor]  # what a step leaves for the next, such as the weight of R1
    config: TrainConfig | SharpenConfig
    machine: Machine


def training_step(nets: Networks, step: int, adversarial: bool, x: Tensor, labels: Tensor | None,
                  noise: Tensor) -> dict[str, Tensor]:  # fmt: skip
    """One step of the VAE, and if it is `adversarial`, one of the discriminator.

    loss = -log p(x|z) + beta * KL + w_adversarial * lambda * generator's loss, where the distortion
    in p is w_mse * MSE + w_perceptual * LPIPS, unless p is a Bernoulli, which has none; lambda is
    `losses.adaptive_weight`. The couplings of a global latent, and they alone, get the gradient of
    beta * w_marginal * the marginal KL as well: see `vae/couplings.py`. Returns each term's value.

    `x`: (B, C, H, W), binarised or in [-1, 1]; `labels`: int64 (B,) or None; `noise`: (B, C, G, G).
    """
    config, machine, model = nets.config, nets.machine, nets.machine.unwrap(nets.model)
    y, posterior = nets.model(x, labels, noise)  # z = mean + std * noise, y = decoder(z)

    pixels = x[0].numel()
    if model.config.likelihood == "bernoulli":
        terms = {"nll": losses.bernoulli_nll(x, y).mean()}
    else:
        terms, distortion = distortion_of(nets, step, x, y)
        terms["nll"] = losses.calibrated_nll(distortion, machine.mean(distortion), pixels)
    loss = terms["nll"]

    if adversarial:
        with frozen(machine.unwrap(nets.discriminator)) as discriminator:
            terms["generator"] = losses.generator_loss(discriminator(y))
        last, both = model.decoder.conv_out.weight, (terms["nll"], terms["generator"])
        gradients = [torch.autograd.grad(term, last, retain_graph=True)[0] for term in both]
        weight = losses.adaptive_weight(*machine.mean(torch.stack(gradients)))
        loss = loss + config.w_adversarial * weight * terms["generator"]
        terms["adaptive_weight"] = weight
    if config.beta:
        terms["kl"] = posterior.kl(noise).mean()
        loss = loss + config.beta * terms["kl"]
        if config.w_marginal and model.couplings:
            terms["marginal"] = marginal_kl(nets, posterior.gaussian.sample(noise), labels)
            loss = loss + config.beta * config.w_marginal * terms["marginal"]

    machine.backward(loss / pixels)
    terms |= machine.descend(nets.model, nets.optimizer, config.clip_norm)
    return terms | (discriminator_step(nets, step, x, y.detach()) if adversarial else {})


def discriminator_step(nets: Networks, step: int, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """One step of the discriminator; `real`, `fake`: (B, C, H, W), without a graph.

    The weight of the R1 penalty rises while the discriminator is right too often, and falls while
    it is not (the idea of Karras et al., "StyleGAN2-ADA", 2020, eq. 1, for their augmentations).
    """
    config, machine, memory = nets.config, nets.machine, nets.memory
    penalized = step % config.lazy == 0
    real = real.detach().requires_grad_(penalized)
    logits_real, logits_fake = nets.discriminator(torch.cat([real, fake])).chunk(2)
    hinge = losses.discriminator_loss(logits_real, logits_fake)
    # Within its margins the hinge is blind to a shift of all logits: this holds them centred,
    # so that neither real nor fake patches are right by default.
    loss = hinge + (logits_real.mean() + logits_fake.mean()).square()
    if penalized:
        penalty = losses.gradient_penalty(logits_real, real)
        loss = loss + 0.5 * config.lazy * memory["penalty"] * penalty
    machine.backward(loss)
    machine.descend(nets.discriminator, nets.d_optimizer)
    right_real, right_fake = ((x > 0).float().mean() for x in (logits_real, -logits_fake))
    error = machine.mean((right_real + right_fake) / 2) - config.discriminator_accuracy
    memory["penalty"] = (memory["penalty"] * torch.exp(PENALTY_RATE * error)).clamp(*PENALTY[1:])
    terms = {"discriminator": hinge, "accuracy_real": right_real, "accuracy_fake": right_fake}
    return terms | {"penalty_weight": memory["penalty"]}


def distortion_of(nets: Networks, step: int, x: Tensor, y: Tensor) -> tuple[dict, Tensor]:
    """w_mse * MSE + w_perceptual * LPIPS of reconstructions `y`, after its terms' values."""
    config, terms, distortion = nets.config, {}, 0.0
    if config.w_mse:
        terms["mse"] = F.mse_loss(y, x)
        distortion = distortion + config.w_mse * terms["mse"]
    if config.w_perceptual:
        terms["perceptual"] = lazy_lpips(nets, step, x, y)
        distortion = distortion + config.w_perceptual * terms["perceptual"]
    return terms, distortion


def lazy_lpips(nets: Networks, step: int, x: Tensor, y: Tensor) -> Tensor:
    """LPIPS of a share of the batch on every `lazy`-th step, with as many times the gradient.

    In between it is the constant last measured (lazy regularisation: Karras et al., "StyleGAN2",
    2020, app. B). The same images on all steps would take 2.5 times as long (docs/speed.md).
    """
    config = nets.config
    lazy = config.lazy if config.w_mse else 1  # every step needs a gradient
    if step % lazy:
        return nets.memory["perceptual"]
    share = ceil(config.perceptual_share * len(x))
    with nets.machine.bf16():
        perceptual = nets.lpips(x[:share], y[:share]).mean()
    nets.memory["perceptual"] = perceptual.detach()
    return losses.amplify_gradient(perceptual, lazy)


def marginal_kl(nets: Networks, drawn: Tensor, labels: Tensor | None) -> Tensor:
    """The marginal KL of the last CODES codes, less a constant, the entropy of the codes.

    The batch's are the first of them: `drawn`: (B, C, 1, 1), of the posteriors' `gaussian`. The
    gradient reaches the couplings alone.
    """
    model, memory = nets.machine.unwrap(nets.model), nets.memory
    with torch.no_grad():
        u = model.decoder_input(drawn, model.class_token(labels, len(drawn)))
        memory["codes"] = torch.cat([u, memory["codes"]])[:CODES]
        if labels is not None:
            memory["codes_of"] = labels = torch.cat([labels, memory["codes_of"]])[:CODES]
        token = model.class_token(labels, len(memory["codes"]))
    return model.couplings.marginal_nll(memory["codes"], token).mean()


@contextmanager
def frozen(module: nn.Module) -> Iterator[nn.Module]:
    """The module, whose parameters get no gradient meanwhile."""
    module.requires_grad_(False)
    try:
        yield module
    finally:
        module.requires_grad_(True)


def sharpening_step(nets: Networks, step: int, x: Tensor, labels: Tensor, told: Tensor, u: Tensor,
                    token: Tensor | None) -> dict[str, Tensor]:  # fmt: skip
    """One step of a decoder whose latents no longer change, and one of its discriminator.

    loss = -log p(x|z) + D * w_adversarial * generator's loss, for D numbers in an image, with the
    distortion of `training_step`. The discriminator sees whole images, and the decoder learns to
    draw one image that might be meant, not the average of all. Returns each term's value.

    `x`: (B, C, H, W) in [-1, 1]; `labels`: int64 (B,), which the discriminator is told. `u`: what
    the decoder sees of B draws of q(z|x) and of D draws of N(0, I), (B + D, C, G, G); `token`: of a
    conditional model, or None. `told`: int64 (D,), what the discriminator is told of the latter.
    """
    config, machine = nets.config, nets.machine
    made = nets.model(u, token)
    terms, distortion = distortion_of(nets, step, x, made[: len(x)])
    pixels = x[0].numel()
    loss = terms["nll"] = losses.calibrated_nll(distortion, machine.mean(distortion), pixels)
    if not config.w_adversarial:
        machine.backward(loss / pixels)
        return terms | machine.descend(nets.model, nets.optimizer, config.clip_norm)

    asked = torch.cat([labels, told])
    with frozen(machine.unwrap(nets.discriminator)) as discriminator:
        terms["generator"] = losses.generator_loss(discriminator(made, asked))
    machine.backward(loss / pixels + config.w_adversarial * terms["generator"])
    terms |= machine.descend(nets.model, nets.optimizer, config.clip_norm)

    images = torch.cat([x, x[: len(told)], made.detach()])  # as many real ones, told the same
    logits_real, logits_fake = nets.discriminator(images, asked.repeat(2)).chunk(2)
    terms["discriminator"] = losses.discriminator_loss(logits_real, logits_fake)
    machine.backward(terms["discriminator"])
    machine.descend(nets.discriminator, nets.d_optimizer)
    right = {"accuracy_real": logits_real > 0, "accuracy_fake": logits_fake < 0}
    return terms | {name: part.float().mean() for name, part in right.items()}


def prior_step(prior: nn.Module, optimizer: torch.optim.Optimizer, config: PriorTrainConfig,
               machine: Machine, *batch: Tensor) -> dict[str, Tensor]:  # fmt: skip
    """One step of a learned prior, on a batch as `flow_loss` takes it."""
    loss = flow_loss(machine.unwrap(prior), *batch, network=prior)
    machine.backward(loss)
    return {"loss": loss} | machine.descend(prior, optimizer, config.clip_norm)


def flow_loss(prior: LatentPrior, mean: Tensor, std: Tensor, labels: Tensor, draw: Tensor,
              noise: Tensor, t: Tensor, withheld: Tensor,
              network: nn.Module | None = None) -> Tensor:  # fmt: skip
    """Flow matching's loss, `LatentPrior.loss`, on draws of posteriors.

    `mean`, `std`: of q(z|x), and `draw`, `noise`: (B, C, G, G); `labels`: int64 (B,); `t`: (B,);
    `withheld`: bool (B,), the labels that the prior is not told.
    """
    labels = labels.masked_fill(withheld, prior.config.num_classes)
    return prior.loss(mean + std * draw, noise, t, labels, network)
