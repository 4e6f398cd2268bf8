import numpy as np

from vae.frames import project


def test_two_values_are_drawn_as_they_are():
    latents = np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32)
    assert np.array_equal(project(latents), latents)


def test_latents_that_are_all_the_same_have_a_place():
    assert np.array_equal(project(np.ones((20, 5), np.float32)), np.zeros((20, 2)))


def test_a_warm_start_drifts_where_a_fresh_one_jumps():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(5, 20)) * 5
    latents = (centres[rng.integers(5, size=200)] + rng.normal(size=(200, 20))).astype(np.float32)
    later = latents + 0.1 * rng.normal(size=latents.shape).astype(np.float32)
    first = project(latents)

    def mean_step(points):
        return np.linalg.norm(points - first, axis=1).mean() / first.std()

    assert mean_step(project(later, first)) < 0.3
    assert mean_step(project(later)) > mean_step(project(later, first))
