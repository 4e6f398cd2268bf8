"""What the judge makes of generated digits: digit-FID, recall, recognised, copies and the like."""

import torch
from torch import Tensor

from ..checks import MNIST_SHAPE, as_labels, check_images
from ..data import BATCH, batches, in_unit_range, load_digits
from ..metrics import grey_share, mse
from ..model import Labels
from .classifier import Judge

CONFIDENT = 0.9  # a digit counts as recognised when one class has more than this probability
NEIGHBOURS = 5  # the last of which bounds a feature's neighbourhood


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Frechet distance of two Gaussians fitted to features (N, D) and (M, D), in float64.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)) for covariances A and B (Dowson & Landau 1982;
    as FID: Heusel et al. 2017, eq. 6). (A B)^(1/2) has the trace of (A^(1/2) B A^(1/2))^(1/2),
    which is symmetric. Raises `ValueError` unless both have as many columns, and 2 rows or more.
    """
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1] or min(len(a), len(b)) < 2:
        expected = "(N, D) and (M, D) are expected, N and M at least 2"
        raise ValueError(f"features are {tuple(a.shape)} and {tuple(b.shape)}; {expected}")
    a, b = a.cpu().double(), b.cpu().double()  # not every device has float64
    cov_a, cov_b = torch.cov(a.T).reshape(a.shape[1], -1), torch.cov(b.T).reshape(a.shape[1], -1)
    values, vectors = torch.linalg.eigh(cov_a)
    root = vectors * values.clamp_min(0).sqrt() @ vectors.T
    cross = torch.linalg.eigvalsh(root @ cov_b @ root).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * cross
    return max(distance.item(), 0.0)


def neighbourhood_scores(real: Tensor, fake: Tensor, k: int = NEIGHBOURS) -> dict[str, float]:
    """Precision, recall, density and coverage of features `fake`: (M, D) of `real`: (N, D).

    A feature's neighbourhood reaches to its `k`-th neighbour of its own kind. "precision": share of
    fakes in a neighbourhood of a real one; "recall": the reverse (Kynkaanniemi et al., "Improved
    Precision and Recall", 2019, eq. 1). "density": real neighbourhoods that hold a fake one, by k,
    which is 1 on average for real ones; "coverage": share of real neighbourhoods that hold a fake
    one (Naeem et al., "Reliable Fidelity and Diversity Metrics", 2020, eq. 3 and 4). The last two
    do not trust outliers. Raises `ValueError` unless both have more than `k` rows.
    """
    if min(len(real), len(fake)) <= k:
        raise ValueError(f"{len(real)} and {len(fake)} features; more than k={k} are expected")
    real, fake = real.cpu().double(), fake.cpu().double()
    of_real, of_fake = (
        torch.cat([torch.cdist(part, x).kthvalue(k + 1).values for (part,) in batches(BATCH, x)])
        for x in (real, fake)  # the first neighbour is the feature itself
    )
    holding, recalled, covered = [], [], []
    for part, radius in batches(BATCH, fake, of_fake):
        distance = torch.cdist(part, real)
        holding.append((distance < of_real).sum(1))
        covered.append((distance < of_real).any(0))
        recalled.append((distance < radius[:, None]).any(0))
    holding = torch.cat(holding).double()
    return {
        "precision": (holding > 0).double().mean().item(),
        "recall": torch.stack(recalled).any(0).double().mean().item(),
        "density": holding.mean().item() / k,
        "coverage": torch.stack(covered).any(0).double().mean().item(),
    }


@torch.no_grad()
def judge_images(images: Tensor, labels: Labels = None, *, reference: Tensor | None = None,
                 neighbours: Tensor | None = None, judge: Judge | None = None) -> dict:  # fmt: skip
    """Score generated digits.

    `images`: (N, 1, 28, 28), uint8 or in [-1, 1]; 10,000 are usual, fewer make the FID larger.
    `labels`: whole numbers (N,), the digits that were asked for, or one for all. `reference`: real
    digits, of the same kind; default: MNIST's 10,000 test digits. `neighbours`: the digits of which
    they must not be copies, or None to leave out that slowest part. `judge`: default: the one in
    the package.

    Returns {"images": N, "fid": the Frechet distance of the judge's features from the reference's,
    "recognised": share with a class of probability above 0.9, "classes": share of each digit read,
    "grey": share of pixels neither black nor white, "precision", "recall", "density" and "coverage"
    (with 6 or more of both): `neighbourhood_scores` of the features, "accuracy" (with `labels`):
    share read as asked for, "nearest" (with `neighbours`): median of the MSE to the nearest of
    them, "nearest_least": the smallest of these}. Raises `ValueError`.
    """
    reference = load_digits("test").images if reference is None else reference
    check_images(images, shape=MNIST_SHAPE, raw=True, hint=True)
    check_images(reference, "reference", shape=MNIST_SHAPE, raw=True, hint=True)
    if neighbours is not None:
        check_images(neighbours, "neighbours", shape=MNIST_SHAPE, raw=True, hint=True)
    for name, given in (("images", images), ("reference", reference)):
        if len(given) < 2:
            raise ValueError(f"{name} has {len(given)} image; the digit-FID needs two or more")
    labels = None if labels is None else as_labels(labels, len(images), 10)
    images = in_unit_range(images)
    judge = judge or Judge.from_pretrained().to(images.device)
    real, fake = (judge_features(judge, x) for x in (reference, images))
    logits = judge.classify(fake.to(judge.classify.weight.device)).cpu()
    probability, read = logits.softmax(1).max(1)
    scores = {
        "images": len(images),
        "fid": frechet_distance(real, fake),
        "recognised": (probability > CONFIDENT).double().mean().item(),
        "classes": (read.bincount(minlength=10).double() / len(images)).tolist(),
        "grey": grey_share(images),
    }
    if min(len(images), len(reference)) > NEIGHBOURS:
        scores |= neighbourhood_scores(real, fake)
    if labels is not None:
        scores["accuracy"] = (read == labels.cpu()).double().mean().item()
    if neighbours is not None:
        nearest = nearest_mse(images, neighbours)
        scores |= {"nearest": nearest.median().item(), "nearest_least": nearest.min().item()}
    return scores


def judge_features(judge: Judge, images: Tensor) -> Tensor:
    """The judge's features (N, D), on the CPU, of images (N, 1, 28, 28), uint8 or in [-1, 1]."""
    device = judge.classify.weight.device
    parts = (in_unit_range(part).to(device) for (part,) in batches(BATCH, images))
    return torch.cat([judge.features(part).cpu() for part in parts])


@torch.no_grad()
def nearest_mse(images: Tensor, neighbours: Tensor) -> Tensor:
    """The MSE between each image and the most similar of `neighbours`: (B,).

    `images`: (B, 1, 28, 28), `neighbours`: (M, 1, 28, 28), both uint8 or in [-1, 1].
    """
    found = []
    for (part,) in batches(BATCH, in_unit_range(images).float()):
        best = torch.full((len(part),), torch.inf, device=part.device)
        place, start = torch.zeros(len(part), dtype=torch.int64, device=part.device), 0
        for (others,) in batches(20 * BATCH, neighbours):
            y = in_unit_range(others).to(part).flatten(1)
            # |x - y|^2 = |x|^2 - 2xy + |y|^2, of which |x|^2 is the same for all y
            distance, index = (y.square().sum(1) - 2 * part.flatten(1) @ y.T).min(1)
            place = torch.where(distance < best, start + index, place)
            best, start = torch.minimum(distance, best), start + len(others)
        found.append(mse(part, in_unit_range(neighbours[place.to(neighbours.device)])))
    return torch.cat(found)
