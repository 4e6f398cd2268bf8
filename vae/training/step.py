"""stage 1: the old form of the step."""

from dataclasses import dataclass
from math import ceil

import torch
import torch.nn.functional as F
from torch import nn

from ..data import PIXELS
from ..losses import (
    adaptive_weight,
    amplify_gradient,
    calibrated_nll,
    discriminator_loss,
    generator_loss,
    gradient_at,
    gradient_penalty,
)
from ..perceptual import LPIPS

PENALTY = (0.05, 1e-4, 1.0)  # weight of R1: at the start, least, most
PENALTY_RATE = 0.1  # of its logarithm, for a step and an error in accuracy of 1


@dataclass
class Networks:
    model: nn.Module
    discriminator: nn.Module
    optimizer: torch.optim.Optimizer
    d_optimizer: torch.optim.Optimizer
    lpips: LPIPS | None


def training_step(networks, machine, config, memory, step, adversarial, x, labels, noise):
    terms = {}
    reconstruction, posterior = networks.model(x, labels, noise)
    image = reconstruction.detach().requires_grad_()
    distortion = torch.zeros((), device=x.device)
    if config.w_mse:
        terms["mse"] = F.mse_loss(image, x)
        distortion = distortion + config.w_mse * terms["mse"]
    if config.w_perceptual:
        lazy = config.lazy if config.w_mse else 1
        if step % lazy == 0:
            share = ceil(config.perceptual_share * len(x))
            with machine.bf16():
                perceptual = networks.lpips(x[:share], image[:share]).mean()
            memory["perceptual"] = perceptual.detach()
            perceptual = amplify_gradient(perceptual, lazy)
        else:
            perceptual = memory["perceptual"]
        terms["perceptual"] = perceptual
        distortion = distortion + config.w_perceptual * perceptual
    variance = machine.mean(distortion)
    terms["nll"] = calibrated_nll(distortion, variance)
    (gradient,) = torch.autograd.grad(terms["nll"], image)
    if adversarial:
        terms["generator"] = generator_loss(machine.unwrap(networks.discriminator)(image))
        (g_gradient,) = torch.autograd.grad(terms["generator"], image)
        last = machine.unwrap(networks.model).decoder.conv_out.weight
        both = [gradient_at(last, reconstruction, g) for g in (gradient, g_gradient)]
        both = machine.mean(torch.stack(both))
        terms["adaptive_weight"] = adaptive_weight(*both)
        gradient = gradient + config.w_adversarial * terms["adaptive_weight"] * g_gradient
    objective = (reconstruction * gradient).sum()
    if config.beta:
        terms["kl"] = posterior.kl().mean()
        objective = objective + config.beta * terms["kl"]
        if config.w_marginal and machine.unwrap(networks.model).couplings:
            marginal = machine.unwrap(networks.model).marginal_nll(posterior.sample(noise), labels)
            terms["marginal"] = marginal.mean()
            objective = objective + config.beta * config.w_marginal * terms["marginal"]
    terms |= machine.descend(
        objective / PIXELS, networks.model, networks.optimizer, config.clip_norm
    )
    if adversarial:
        terms |= discriminator_step(networks, machine, config, memory, step, x, image.detach())
    return {name: value.detach() for name, value in terms.items()}


def discriminator_step(networks, machine, config, memory, step, real, fake):
    penalized = step % config.lazy == 0
    real = real.detach().requires_grad_(penalized)
    logits_real, logits_fake = networks.discriminator(torch.cat([real, fake])).chunk(2)
    hinge = discriminator_loss(logits_real, logits_fake)
    loss = hinge + (logits_real.mean() + logits_fake.mean()).square()
    if penalized:
        weight = 0.5 * config.lazy * memory["penalty"]
        loss = loss + weight * gradient_penalty(logits_real, real)
    machine.accelerator.backward(loss)
    networks.d_optimizer.step()
    networks.d_optimizer.zero_grad()
    accuracy_real = (logits_real > 0).float().mean()
    accuracy_fake = (logits_fake < 0).float().mean()
    accuracy = machine.mean((accuracy_real + accuracy_fake) / 2)
    error = accuracy - config.discriminator_accuracy
    memory["penalty"] = (memory["penalty"] * torch.exp(PENALTY_RATE * error)).clamp(*PENALTY[1:])
    return {
        "discriminator": hinge,
        "accuracy_real": accuracy_real,
        "accuracy_fake": accuracy_fake,
        "penalty_weight": memory["penalty"],
    }


def prior_step(prior, network, optimizer, machine, config, *batch):
    loss = flow_loss(prior, network, *batch)
    return {"loss": loss} | machine.descend(loss, network, optimizer, config.clip_norm)


def flow_loss(prior, network, mean, std, labels, of_posterior, noise, t, withheld):
    labels = labels.masked_fill(withheld, prior.config.num_classes)
    return prior.loss(mean + std * of_posterior, noise, t, labels, network)
