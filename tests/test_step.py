"""One step of a training: its gradient is that of the loss, and moves what it should."""

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import snapshot

import vae
from vae import Trainer, losses, step


def at(trainer: Trainer, number: int, adversarial: bool) -> Trainer:
    """The training as it is before step `number`, with a discriminator or without."""
    trainer.steps_done, trainer.adversarial_from = number, 0 if adversarial else 10**6
    return trainer


def discriminator_step(trainer: Trainer, number: int, real, fake) -> dict:
    """The discriminator's half of `step.vae_step`."""
    loss, terms = step.discriminator_loss(at(trainer, number, True), real, fake)
    trainer.machine.update(trainer.discriminator, trainer.d_optimizer, loss)
    trainer.memory.penalty.copy_(terms["penalty_weight"])
    return terms


def moved(module, before):
    return [not torch.equal(a, b) for a, b in zip(module.parameters(), before, strict=True)]


def test_each_optimiser_moves_its_own_parameters_and_no_others(trainer, monkeypatch):
    batch = trainer.batch()
    monkeypatch.setattr(trainer.d_optimizer, "step", lambda: None)
    vae_before, d_before = (snapshot(trainer.model), snapshot(trainer.discriminator))
    for _ in range(3):  # zero-initialised layers hold back the gradients of those before them
        step.vae_step(at(trainer, 0, True), *batch)
    assert all(moved(trainer.model, vae_before))
    assert not any(moved(trainer.discriminator, d_before))
    monkeypatch.undo()
    monkeypatch.setattr(trainer.optimizer, "step", lambda: None)
    vae_before = snapshot(trainer.model)
    step.vae_step(at(trainer, 0, True), *batch)
    assert not any(moved(trainer.model, vae_before))
    assert all(moved(trainer.discriminator, d_before))
    assert not any(moved(trainer.lpips, snapshot(vae.LPIPS())))


@pytest.mark.parametrize(
    "shape",
    [{}, *({"latent_grid": 1, "latent_size": 3, "num_classes": 10, "posterior": kind}
           for kind in ("diagonal", "coupled"))],
)  # fmt: skip
@pytest.mark.parametrize("number", [0, 1])  # LPIPS is measured at 0, and a constant at 1
def test_the_step_has_the_gradient_of_the_loss_written_out(
    number, shape, tiny, tmp_path, monkeypatch
):
    weights = {"beta": 0.7, "w_perceptual": 0.05, "w_adversarial": 0.3, "w_marginal": 0.0}
    trainer = Trainer(tiny(shape, clip_norm=1e9, **weights), tmp_path / "run")
    for parameter in trainer.model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, labels, noise = trainer.batch()
    gradients = {}

    def keep():
        gradients.update({n: p.grad.clone() for n, p in trainer.model.named_parameters()})

    monkeypatch.setattr(trainer.optimizer, "step", keep)
    monkeypatch.setattr(trainer.d_optimizer, "step", lambda: None)
    trainer.memory.perceptual.fill_(0.2)
    step.vae_step(at(trainer, number, True), x, labels, noise)

    model, config = trainer.model, trainer.config
    y, posterior = model(x, labels, noise)
    share = math.ceil(config.perceptual_share * len(x))
    lpips = trainer.lpips(x[:share], y[:share]).mean()
    lpips = lpips.detach() + config.lazy * (lpips - lpips.detach())
    lpips = torch.tensor(0.2) if number else lpips
    distortion = F.mse_loss(y, x) + config.w_perceptual * lpips
    nll = 784 / 2 * (torch.log(2 * math.pi * distortion) + 1)
    generator = -trainer.discriminator(y).mean()
    last = model.decoder.conv_out.weight
    norms = [torch.autograd.grad(t, last, retain_graph=True)[0].norm() for t in (nll, generator)]
    weight = (norms[0] / (norms[1] + 1e-6)).detach()
    loss = nll + 0.7 * posterior.kl(noise).mean() + 0.3 * weight * generator
    expected = torch.autograd.grad(loss / 784, list(model.parameters()))
    for (name, _), g in zip(model.named_parameters(), expected, strict=True):
        torch.testing.assert_close(gradients[name], g, rtol=1e-3, atol=1e-6)


def test_lpips_is_measured_on_every_lazy_step_and_remembered_in_between(tiny, tmp_path):
    trainer = Trainer(tiny(lazy=3), tmp_path)
    batch, seen = trainer.batch(), []
    for number in range(7):
        terms = step.vae_step(at(trainer, number, False), *batch)
        seen.append(terms["perceptual"].item())
    assert seen[0] == seen[1] == seen[2] != seen[3] == seen[4] == seen[5] != seen[6]
    assert min(seen) > 0


@pytest.mark.parametrize("number", [0, 1])  # R1 counts at 0, and not at 1
def test_the_discriminators_step_has_the_gradient_of_its_loss_written_out(
    number, trainer, digits, monkeypatch
):
    discriminator, gradients = trainer.discriminator, []

    def keep():
        gradients.extend(parameter.grad.clone() for parameter in discriminator.parameters())

    monkeypatch.setattr(trainer.d_optimizer, "step", keep)
    blurred = F.avg_pool2d(digits, 3, 1, 1)
    discriminator_step(trainer, number, digits, blurred)

    x = digits.clone().requires_grad_()
    real, fake = discriminator(x), discriminator(blurred)
    loss = (1 - real).relu().mean() + (1 + fake).relu().mean()
    loss = loss + (real.mean() + fake.mean()) ** 2
    if number == 0:
        (slope,) = torch.autograd.grad(real.mean((1, 2, 3)).sum(), x, create_graph=True)
        loss = loss + 0.5 * 4 * 0.05 * slope.square().sum((1, 2, 3)).mean()  # lazy, its weight
    expected = torch.autograd.grad(loss, list(discriminator.parameters()))
    for ours, theirs in zip(gradients, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-6)


def test_the_kls_gradient_reaches_the_encoder(tiny, tmp_path, monkeypatch):
    gradients = {}
    for beta in (0.0, 1.0):
        trainer = Trainer(tiny(beta=beta, clip_norm=1e9), tmp_path / str(beta))
        bias = trainer.model.encoder.conv_out.bias
        monkeypatch.setattr(
            trainer.optimizer, "step", lambda b=beta, p=bias: gradients.update({b: p.grad.clone()})
        )
        step.vae_step(at(trainer, 0, False), *trainer.batch())
    assert (gradients[0.0] != gradients[1.0]).all()


TERMS = {  # weight: what it adds to the logged terms
    "w_mse": {"mse"},
    "w_perceptual": {"perceptual"},
    "beta": {"kl", "marginal"},
    "w_marginal": {"marginal"},
    "w_adversarial": {"generator", "adaptive_weight", "discriminator", "accuracy_real"},
}


@pytest.mark.parametrize("posterior", ["diagonal", "coupled"])
@pytest.mark.parametrize("classes", [0, 10])
def test_the_couplings_and_nothing_else_get_the_gradient_of_the_marginal_kl(
    classes, posterior, tiny, tmp_path, monkeypatch
):
    got = {}
    for weight in (0.0, 10.0):
        shape = {"latent_size": 3, "latent_grid": 1, "num_classes": classes}
        shape |= {"posterior": posterior}
        config = tiny(shape, w_marginal=weight, beta=0.7, clip_norm=1e9)
        trainer = Trainer(config, tmp_path / str(weight))
        torch.manual_seed(0)
        for parameter in trainer.model.parameters():
            torch.nn.init.normal_(parameter, std=0.1)

        def keep(model=trainer.model, weight=weight):
            got[weight] = {n: p.grad.clone() for n, p in model.named_parameters()}

        monkeypatch.setattr(trainer.optimizer, "step", keep)
        codes, digits = [], []
        for number in range(18):  # 18 * 32 codes, of which the last 512 count
            at(trainer, number % 16, False)
            x, labels, noise = trainer.batch()
            step.vae_step(at(trainer, number, False), x, labels, noise)
            token = trainer.model.class_token(labels, len(x))
            drawn = trainer.model.encode(x, labels).gaussian.sample(noise)
            codes.append(trainer.model.decoder_input(drawn, token).detach())
            digits.append(labels)
    u = torch.cat(codes[::-1])[:512]
    labels = torch.cat(digits[::-1])[:512] if classes else None
    token = trainer.model.class_token(labels, len(u))
    token = token if token is None else token.detach()
    nll = trainer.model.couplings.marginal_nll(u, token)
    wanted = torch.autograd.grad(nll.mean() * 0.7 * 10 / 784, trainer.model.couplings.parameters())
    couplings = [f"couplings.{n}" for n, _ in trainer.model.couplings.named_parameters()]
    for name, gradient in zip(couplings, wanted, strict=True):
        torch.testing.assert_close(got[10.0][name] - got[0.0][name], gradient, rtol=1e-3, atol=1e-6)
    for name in got[0.0].keys() - set(couplings):
        torch.testing.assert_close(got[10.0][name], got[0.0][name], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("weight", TERMS)
def test_a_term_is_computed_if_its_weight_is_above_zero(weight, tiny, tmp_path):
    for value in (0.0, 0.5):
        weights = {"w_perceptual": 0.05, "w_adversarial": 0.1} | {weight: value}
        config = tiny({"latent_grid": 1}, adversarial_start=0.0, **weights)
        trainer = Trainer(config, tmp_path / str(value))
        trainer.take_step()
        trainer.take_step()  # on which LPIPS and R1 are not computed
        for terms in trainer.log.recent:
            assert all((term in terms) == (value > 0) for term in TERMS[weight])
            assert all(term.isfinite() for term in terms.values())
    if weight == "w_perceptual":
        assert (
            Trainer(tiny(w_perceptual=0, lpips_images=0), tmp_path / "none").networks.lpips is None
        )


def test_the_penalty_holds_the_discriminator_back(tiny, tmp_path, digits):
    def gradient_at_real(weight):
        trainer = Trainer(tiny(), tmp_path / str(weight))
        for _ in range(20):
            trainer.memory.penalty.fill_(weight)
            discriminator_step(trainer, 0, digits, F.avg_pool2d(digits, 3, 1, 1))
        x = digits.clone().requires_grad_()
        return losses.gradient_penalty(trainer.discriminator(x), x).item()

    assert gradient_at_real(1.0) < 0.5 * gradient_at_real(0.0)


def test_the_penalty_rises_while_the_discriminator_is_right_too_often_and_falls_else(
    tiny, tmp_path, digits
):
    for accuracy, moved_by in ((0.5, 1), (1.0, -1)):
        trainer = Trainer(tiny(discriminator_accuracy=accuracy), tmp_path / str(accuracy))
        for _ in range(10):
            before = trainer.memory.penalty.item()
            terms = discriminator_step(trainer, 0, digits, -torch.ones_like(digits))
            right = (terms["accuracy_real"] + terms["accuracy_fake"]).item() / 2
            expected = before * math.exp(0.1 * (right - accuracy))
            assert trainer.memory.penalty.item() == pytest.approx(expected, rel=1e-4)
        assert moved_by * (trainer.memory.penalty.item() - 0.05) > 0


def test_the_discriminator_is_told_which_images_are_real_and_gets_no_other_gradient(
    trainer, monkeypatch
):
    seen, parameters = {}, list(trainer.discriminator.parameters())
    whole = step.discriminator_loss

    def spy(t, real, fake):
        seen.update(real=real, fake=fake, gradients=[one.grad for one in parameters])
        return whole(t, real, fake)

    monkeypatch.setattr(step, "discriminator_loss", spy)
    x, labels, noise = trainer.batch()
    step.vae_step(at(trainer, 0, True), x, labels, noise)
    assert seen["real"] is x
    assert not torch.equal(seen["fake"], x)
    assert not seen["fake"].requires_grad
    assert seen["gradients"] == [None] * len(parameters)  # none of the generator's loss
    assert all(one.requires_grad for one in parameters)


def test_penalty_and_hinge_train_a_discriminator(trainer, digits):
    blurred = F.avg_pool2d(digits, 3, 1, 1)
    for _ in range(60):
        terms = discriminator_step(trainer, 0, digits, blurred)
    assert terms["accuracy_real"] > 0.7
    assert terms["accuracy_fake"] > 0.7
    assert terms["discriminator"] < 1.5
