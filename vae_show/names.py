"""What models, data sets and classes are called in titles and legends."""

from collections.abc import Sequence

from vae.model import VAEConfig
from vae_store.pictures import dataset_name

LONGEST_NAME = 16  # letters of a class


def describe(config: VAEConfig, dataset: str) -> str:
    """ "latent size 2 on 7×7", then "Bernoulli" and a data set that is not MNIST, for titles."""
    shape = f"latent size {config.latent_size} on {config.latent_grid}×{config.latent_grid}"
    shape += ", Bernoulli" * (config.likelihood == "bernoulli")
    return shape + ("" if dataset == "mnist" else f", {plain(dataset_name(dataset))}")


def class_name(label: int, names: Sequence[str] = ()) -> str:
    """What a class is called in pictures: its number, if it has no name; a long one is cut."""
    name = str(names[label]) if label < len(names) else str(label)
    return plain(name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…")


def plain(name: str) -> str:
    """A name of somebody's as matplotlib draws it letter by letter, a dollar sign too."""
    return "".join(letter for letter in name if letter.isprintable()).replace("$", r"\$")
