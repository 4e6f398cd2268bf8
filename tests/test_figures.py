"""The pictures of generation: each shows what its title says."""

import numpy as np
import pytest
import torch
from helpers import make, make_prior

import vae
from vae.machinery import figures, run
from vae.machinery.frames import Frames


def drawn(figure, columns):
    """The images in a figure's grid: (N, 28, 28)."""
    pixels = torch.tensor(np.asarray(figure.axes[0].images[0].get_array()))
    rows = pixels.unflatten(0, (-1, 30)).unflatten(2, (columns, 30)).transpose(1, 2)
    return rows.flatten(0, 1)[:, 1:-1, 1:-1]


def test_spherical_interpolation_stays_on_the_sphere():
    a, b = torch.randn(2, 6, 16, 1, 1)
    a, b = (v / v.flatten(1).norm(dim=1).view(-1, 1, 1, 1) for v in (a, b))
    quarter = figures.slerp(a, b, 0.25)
    assert torch.allclose(quarter.flatten(1).norm(dim=1), torch.ones(6), atol=1e-5)
    whole, part = ((a * v).flatten(1).sum(1).acos() for v in (b, quarter))
    assert torch.allclose(part, 0.25 * whole, atol=1e-4)  # as far along the arc
    assert torch.allclose(figures.slerp(a, b, 0), a, atol=1e-6)
    assert torch.allclose(figures.slerp(a, b, 1), b, atol=1e-6)
    assert torch.allclose(figures.slerp(a, 3 * a, 0.5), 2 * a)  # parallel: a straight line
    opposite = figures.slerp(a, -3 * a + 1e-4 * b, 0.3).flatten(1).norm(dim=1)
    assert torch.allclose(opposite, torch.full((6,), 1.6), atol=1e-3)


@torch.no_grad()
def test_between_two_images_the_way_is_an_arc_or_a_line_and_the_label_the_nearer_ones(digits):
    first = vae.Digits(digits[:2], torch.tensor([7, 2]))
    second = vae.Digits(digits[2:4], torch.tensor([1, 0]))
    one = make(latent_size=1, latent_grid=1)  # has no sphere to go along
    a, b = (one.encode(end.images).mean for end in (first, second))
    (middle,) = figures.decode_between(one, first, second, [0.5])
    assert torch.equal(middle, one.decode(torch.lerp(a, b, 0.5)))
    model = make(latent_size=3, latent_grid=1, num_classes=10)
    a, b = (model.encode(*end).mean for end in (first, second))
    for t, labels in ((0.4, first.labels), (0.6, second.labels)):
        (between,) = figures.decode_between(model, first, second, [t])
        assert torch.equal(between, model.decode(figures.slerp(a, b, t), labels))


@pytest.mark.parametrize(("n", "columns"), [(10, 5), (9, 9)])
def test_an_interpolation_gif_goes_to_the_next_digit_and_back(n, columns, digits):
    model, some = make(latent_size=3), vae.Digits(digits[:n], torch.arange(n))
    frames = figures.interpolation_frames(model, some, "name")
    assert len(frames) == 2 * figures.INTERPOLATION_FRAMES - 2
    ends = [drawn(frames[k], columns) for k in (0, figures.INTERPOLATION_FRAMES - 1)]
    with torch.no_grad():
        expected = model.decode(model.encode(digits[:n]).mean)[:, 0]
    assert torch.allclose(ends[0], expected, atol=1e-5)
    assert torch.allclose(ends[1], expected.roll(-1, 0), atol=1e-5)


def test_the_interpolation_of_a_test_set_that_lacks_a_class_has_its_labels(tmp_path, monkeypatch):
    images, labels = (part[:100] for part in vae.load_digits("test"))
    test_set = vae.Digits(images[labels != 3], labels[labels != 3])
    model, frames, pictures = make(num_classes=10), Frames(test_set, 50), {}
    assert frames.classes.tolist() == [0, 0, 1, 2, 4, 5, 6, 7, 8, 9]  # ten all the same
    frames.record(model, test_set, 0.0)
    about = {"config": {"dataset": "mnist"}, "history": {"train": [], "test": [{}]}}
    monkeypatch.setattr(run, "draw", lambda path, made, rgb: pictures.update({path.name: made}))
    vae.render(vae.Run(tmp_path, model, about, frames))
    start = drawn(pictures["interpolation.gif"]()[0], 5)
    x = torch.from_numpy(frames.originals)[:, None].float()
    classes = torch.from_numpy(frames.classes)
    with torch.no_grad():
        expected = model.decode(model.encode(x, classes).mean, classes)[:, 0]
    assert torch.allclose(start, expected, atol=1e-5)


def test_the_manifold_is_the_plane_of_two_values_with_the_second_upwards():
    model = make(latent_size=2, latent_grid=1)
    images = drawn(figures.plot_manifold(model, "name", side=5), 5)
    low = torch.distributions.Normal(0, 1).icdf(torch.tensor(0.1))
    corners = torch.tensor([[low, -low], [-low, low]]).view(2, 2, 1, 1)  # top left, bottom right
    with torch.no_grad():
        expected = model.decode(corners)[:, 0]
        middle = model.decode(torch.zeros(1, 2, 1, 1))[0, 0]
    assert torch.allclose(images[[0, 24]], expected, atol=1e-5)
    assert torch.allclose(images[12], middle, atol=1e-5)
    with pytest.raises(ValueError, match="3 latent values"):
        figures.plot_manifold(make(latent_size=3, latent_grid=1), "name")


def test_the_name_of_a_row_stands_beside_its_middle():
    axes = figures.plot_examples(vae.load_digits("test"), "title").axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == [*"0123456789"]
    assert np.array_equal(axes.get_yticks(), 30 * np.arange(10) + 14.5)


@pytest.mark.parametrize("learned", [False, True])
def test_a_row_is_a_digit_and_a_column_a_draw(learned):
    model = make(latent_size=4, num_classes=0 if learned else 10)
    prior = make_prior(steps=1) if learned else None
    images = drawn(figures.plot_digits(model, "name", prior, seed=5, columns=3), 3)
    assert len(images) == 30
    noise = torch.randn(3, 4, 7, 7, generator=torch.Generator().manual_seed(5))
    eights = torch.full((3,), 8)
    with torch.no_grad():
        z = prior.sample(3, eights, noise=noise) if learned else noise
        expected = model.decode(z, None if learned else eights)[:, 0]
    assert torch.allclose(images[24:27], expected, atol=1e-4)
    with pytest.raises(ValueError, match="must know digits"):
        figures.plot_digits(make(), "name")


def test_what_was_measured_after_the_couplings_were_fitted_is_marked():
    rows = [{"epoch": n, "kl": 16.0 + n} for n in (0, 1, 2, 2)]
    (axes,) = figures.plot_curves(rows, "title").axes
    before, fit = axes.lines
    assert before.get_xdata().tolist() == [0, 1, 2]
    assert (fit.get_xdata().tolist(), fit.get_label()) == ([2, 2], "couplings fitted")
    (axes,) = figures.plot_curves(rows[:3], "title").axes
    assert len(axes.lines) == 1


def test_a_rate_that_stays_is_drawn_as_one_that_stays():
    rows = [{"epoch": n, "kl": 16 + n * 1e-7, "mse": 0.1 + 0.01 * n} for n in range(3)]
    mse, kl = figures.plot_curves(rows, "title").axes
    assert kl.get_ylim() == pytest.approx((14.4, 17.6), rel=1e-6)
    low, high = mse.get_ylim()
    assert low < 0.1 < 0.12 < high < 0.15
