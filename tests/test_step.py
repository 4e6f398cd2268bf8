"""One step of a training: its gradient is that of the loss, and moves what it should."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import advance, caught, snapshot

import vae
from vae import step
from vae.machinery.trainings import Trainer


def moved(module, before):
    return [not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True)]


def test_each_optimiser_moves_its_own_parameters_and_no_others(tiny, tmp_path):
    trainer = Trainer(tiny(adversarial_start=0.0), tmp_path)
    batch, modules = trainer.batch(), (trainer.model, trainer.discriminator)
    for still, optimizer in ((1, trainer.d_optimizer), (0, trainer.optimizer)):
        before = [snapshot(module) for module in modules]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(optimizer, "step", lambda: None)
            for _ in range(3):  # zero-initialised layers hold back the gradients before them
                trainer.step_on(*batch)
        assert not any(moved(modules[still], before[still]))
        assert all(moved(modules[1 - still], before[1 - still]))
    assert not any(moved(trainer.lpips, snapshot(vae.LPIPS())))


@pytest.mark.parametrize(
    "shape",
    [{}, *({"latent_grid": 1, "latent_size": 3, "num_classes": 10, "posterior": kind}
           for kind in ("diagonal", "coupled"))],
)  # fmt: skip
@pytest.mark.parametrize("number", [0, 1])  # LPIPS and R1 are measured at 0, and not at 1
def test_the_step_has_the_gradients_of_the_losses_written_out(
    number, shape, tiny, tmp_path, monkeypatch
):
    weights = {"beta": 0.7, "w_perceptual": 0.05, "w_adversarial": 0.3, "w_marginal": 0.0}
    t = Trainer(tiny(shape, clip_norm=1e9, adversarial_start=0.0, **weights), tmp_path / "run")
    for parameter in t.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, labels, noise = t.batch()
    gradients = caught(monkeypatch, t.optimizer, t.model)
    d_gradients = caught(monkeypatch, t.d_optimizer, t.discriminator)
    t.memory.perceptual.fill_(0.2)
    t.steps_done = number
    t.step_on(x, labels, noise)

    model, config = t.model, t.config
    y, posterior = model(x, labels, noise)
    share = math.ceil(config.perceptual_share * len(x))
    lpips = t.lpips(x[:share], y[:share]).mean()
    lpips = lpips.detach() + config.lazy * (lpips - lpips.detach())
    lpips = torch.tensor(0.2) if number else lpips
    distortion = F.mse_loss(y, x) + config.w_perceptual * lpips
    nll = 784 / 2 * (torch.log(2 * math.pi * distortion) + 1)
    generator = -t.discriminator(y).mean()
    last = model.decoder.conv_out.weight
    norms = [torch.autograd.grad(g, last, retain_graph=True)[0].norm() for g in (nll, generator)]
    weight = (norms[0] / (norms[1] + 1e-6)).detach()
    loss = nll + 0.7 * posterior.kl(noise).mean() + 0.3 * weight * generator
    expected = torch.autograd.grad(loss / 784, list(model.parameters()))
    torch.testing.assert_close(tuple(gradients.values()), expected, rtol=1e-3, atol=1e-6)
    for parameter, gradient in zip(model.parameters(), gradients.values(), strict=True):
        assert torch.equal(parameter.grad, gradient)  # the discriminator's loss adds none

    x = x.clone().requires_grad_()
    real, fake = t.discriminator(x), t.discriminator(y.detach())
    loss = (1 - real).relu().mean() + (1 + fake).relu().mean() + (real.mean() + fake.mean()) ** 2
    if number == 0:
        (slope,) = torch.autograd.grad(real.mean((1, 2, 3)).sum(), x, create_graph=True)
        loss = loss + 0.5 * 4 * 0.05 * slope.square().sum((1, 2, 3)).mean()  # lazy, its weight
    expected = torch.autograd.grad(loss, list(t.discriminator.parameters()))
    torch.testing.assert_close(tuple(d_gradients.values()), expected, rtol=1e-3, atol=1e-6)
    assert all(parameter.requires_grad for parameter in t.discriminator.parameters())


@pytest.mark.parametrize("posterior", ["diagonal", "coupled"])
@pytest.mark.parametrize("classes", [0, 10])
def test_the_couplings_and_nothing_else_get_the_gradient_of_the_marginal_kl(
    classes, posterior, tiny, tmp_path, monkeypatch
):
    monkeypatch.setattr(step, "CODES", 112)  # 5 batches of 32 are more
    shape = {"latent_size": 3, "latent_grid": 1, "num_classes": classes, "posterior": posterior}
    got = {}
    for weight in (0.0, 10.0):
        t = Trainer(tiny(shape, w_marginal=weight, beta=0.7, clip_norm=1e9), tmp_path)
        torch.manual_seed(0)
        for parameter in t.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
        codes, digits = [], []
        for t.steps_done in range(5):
            x, labels, noise = t.batch()
            loss, _, _ = step.vae_loss(t, x, labels, noise)
            token = t.model.class_token(labels, len(x))
            drawn = t.model.encode(x, labels).gaussian.sample(noise)
            codes.append(t.model.decoder_input(drawn, token).detach())
            digits.append(labels)
        t.model.zero_grad()
        loss.backward()
        got[weight] = {name: p.grad for name, p in t.model.named_parameters()}
    u = torch.cat(codes[::-1])[:112]
    labels = torch.cat(digits[::-1])[:112] if classes else None
    token = t.model.class_token(labels, len(u))
    nll = t.model.couplings.marginal_nll(u, token if token is None else token.detach())
    couplings = dict(t.model.couplings.named_parameters(prefix="couplings"))
    wanted = torch.autograd.grad(nll.mean() * 0.7 * 10 / 784, couplings.values())
    for name, gradient in zip(couplings, wanted, strict=True):
        torch.testing.assert_close(got[10.0][name] - got[0.0][name], gradient, rtol=1e-3, atol=1e-6)
    for name in got[0.0].keys() - set(couplings):
        torch.testing.assert_close(got[10.0][name], got[0.0][name], rtol=1e-4, atol=1e-7)


TERMS = {  # weight: what it adds to the logged terms
    "w_mse": {"mse"},
    "w_perceptual": {"perceptual"},
    "beta": {"kl", "marginal"},
    "w_marginal": {"marginal"},
    "w_adversarial": {"generator", "adaptive_weight", "discriminator", "accuracy_real"},
}


@pytest.mark.parametrize("weight", TERMS)
def test_a_term_is_computed_if_its_weight_is_above_zero(weight, tiny, tmp_path):
    for value in (0.0, 0.5):
        weights = {"w_perceptual": 0.05, "w_adversarial": 0.1} | {weight: value}
        config = tiny({"latent_grid": 1}, adversarial_start=0.0, lpips_images=0, **weights)
        trainer = Trainer(config, tmp_path)
        assert (trainer.lpips is None) == (weight == "w_perceptual" and not value)
        advance(trainer, 2)  # on the second LPIPS and R1 are not computed
        for terms in trainer.recent:
            assert all((term in terms) == (value > 0) for term in TERMS[weight])
            assert all(term.isfinite() for term in terms.values())


def test_the_penalty_rises_while_the_discriminator_is_right_too_often_and_falls_else(
    tiny, tmp_path, wide_networks
):
    for accuracy, sign in ((0.5, 1), (1.0, -1)):
        config = tiny({"latent_grid": 1}, discriminator_accuracy=accuracy, w_adversarial=0.1,
                      adversarial_start=0.0, lpips_images=0)  # fmt: skip
        trainer = Trainer(config, tmp_path)
        for _ in range(8):
            before = trainer.memory.penalty.item()
            trainer.take_step()
            terms = trainer.recent[-1]
            right = (terms["accuracy_real"] + terms["accuracy_fake"]).item() / 2
            expected = before * math.exp(0.1 * (right - accuracy))
            assert trainer.memory.penalty.item() == pytest.approx(expected, rel=1e-4)
        assert sign * (trainer.memory.penalty.item() - step.PENALTY_START) > 0
