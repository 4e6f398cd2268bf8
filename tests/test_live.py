"""The picture in which a training is watched in a notebook."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from helpers import make

import vae
from vae.machinery.animations import COLOURS, PLANE, WIDTH, draw_live, plane
from vae.machinery.frames import Frames
from vae.machinery.trainings import live_view

ROW = {"mse": 0.0123, "kl": 45.6, "step": 3}


@pytest.fixture(params=[{"latent_grid": 1}, {}, {"image_channels": 3, "image_size": 32}], ids=str)
def frames(request):
    """Two frames of an untrained model, of two latent values, of more, and in colour."""
    model, n = make(**request.param), 30
    images = torch.randint(256, (n, *model.config.image_shape), dtype=torch.uint8)
    test_set = vae.Digits(images, torch.arange(n) % 10)
    found = Frames(test_set, n)
    for epoch in (0.5, 1):
        found.record(model, test_set, epoch)
    return found


def test_it_shows_images_reconstructions_latents_and_losses(frames):
    picture = np.asarray(draw_live(frames, ROW), int)
    assert picture.shape[1:] == (WIDTH, 3)
    without = np.asarray(draw_live(frames, {}), int)
    changed = np.argwhere((picture != without).any(2))  # the losses, beside the plane
    assert changed[:, 1].min() > PLANE
    frames.reconstructions[-1] = 1
    white = np.asarray(draw_live(frames, ROW), int)
    high = np.argwhere((picture != white).any(2))[:, 0]
    assert len(picture) - PLANE - 30 > high[high < 150].max() > high.min() > 0.08 * WIDTH


def test_a_dot_has_the_colour_of_its_class_where_its_latent_is(frames):
    frames.latents, frames.labels = frames.latents[:0], np.arange(4)
    frames.points = np.array([[[-2, -1], [2, -1], [-2, 1], [2, 1]]], np.float32)
    drawn, low, high = plane(frames), 4, PLANE - 5
    for label, x in enumerate((low, high, low, high)):
        rows = np.argwhere((drawn[:, x] == [*bytes.fromhex(COLOURS[label][1:])]).all(1))[:, 0]
        below = PLANE * (0.75 if label < 2 else 0.25)  # as long across as up
        assert abs(rows.mean() - below) < 3


def test_one_picture_is_renewed_and_there_is_none_outside_of_a_notebook(frames, monkeypatch):
    shown, renewed = [], []

    def display(picture, display_id):
        shown.append(picture)
        return SimpleNamespace(update=renewed.append)

    monkeypatch.setattr("IPython.display.display", display)
    assert live_view(True) is None
    monkeypatch.setattr("IPython.get_ipython", lambda: SimpleNamespace(kernel=object()))
    assert live_view(False) is None
    view = live_view(True)
    for _ in range(3):
        view.show(frames, ROW)
    assert (len(shown), len(renewed)) == (1, 2)
    assert len(shown[0].data) < 300_000
