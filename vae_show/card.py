"""A run's page on the Hugging Face hub: what it is, how it is used, how good, how trained."""

from collections.abc import Sequence

from vae.model import VAEConfig
from vae_store.settings import from_saved

from .figures import TITLES
from .names import describe

DATASETS = {"mnist": "ylecun/mnist", "fashion_mnist": "zalando-datasets/fashion_mnist"}  # there
DIGITS = {"mse": 5, "ssim": 4, "psnr": 2, "lpips": 5, "kl": 1, "neg_elbo": 1}  # of a table


def model_card(metrics: dict, repo_id: str, pictures: Sequence[str] = (),
               prior: bool = False) -> str:  # fmt: skip
    """The README.md of a repository `repo_id` that holds a finished run, as Markdown.

    `metrics`: what the run's `metrics.json` holds. `pictures`: names of those beside the card, of
    which the first stands on top. `prior`: whether a learned prior lies there too.
    """
    settings = metrics["config"]
    config, dataset = from_saved(VAEConfig, settings["model"]), settings["dataset"]
    classes, shape = config.num_classes, "×".join(map(str, config.latent_shape))
    kind = f"{'variational ' * config.variational}autoencoder"
    kind = (f"conditional {kind}" if classes else kind).capitalize()
    about = [
        f"Trained on {dataset}. An image becomes {config.latent_values:,} numbers, {shape}.",
        f"Encoder and decoder are told its class, one of {classes}." * bool(classes),
        "The decoder was trained a second time, for sharper images." * ("sharpen" in metrics),
        "A prior of the latents, learned by flow matching, lies beside the model." * prior,
    ]
    # each has its title in it
    shown = [f"![{name.rpartition('.')[0].replace('_', ' ')}]({name})" for name in pictures]
    return "\n\n".join([
        _front(metrics, config, repo_id), f"# {kind}, {describe(config, dataset)}",
        " ".join(filter(None, about)), *shown[:1], "## Use", _use(config, repo_id, prior),
        "## Reconstructions", _table(metrics, config.variational),
        "## Training", _training(metrics), *shown[1:],
    ]) + "\n"  # fmt: skip


def _front(metrics: dict, config: VAEConfig, repo_id: str) -> str:
    """The YAML on top, by which the hub sorts, searches and compares."""
    from huggingface_hub import EvalResult, ModelCardData

    dataset, values = metrics["config"]["dataset"], metrics["test"]["sample"]
    there = DATASETS.get(dataset, dataset)
    results = [EvalResult("image-to-image", there, dataset, name, value, "Reconstruction",
                          dataset_split="test") for name, value in values.items()]  # fmt: skip
    data = ModelCardData(
        license="mit", library_name="pytorch", datasets=[there] if dataset in DATASETS else None,
        tags=["vae" if config.variational else "autoencoder", "image-reconstruction"],
        pipeline_tag="unconditional-image-generation" if config.variational else "image-to-image",
        metrics=list(values), model_name=repo_id.split("/")[-1], eval_results=results,
    )  # fmt: skip
    return f"---\n{data.to_yaml()}\n---"


def _use(config: VAEConfig, repo_id: str, prior: bool) -> str:
    labels, given = (text * bool(config.num_classes) for text in (", labels=0", ", labels"))
    drawn = f"model.sample(16{labels}{', prior=prior' * prior})"
    rebuilt = f"model.decode(model.encode(images{given}).mode(){given})"
    lines = ["import vae", "", f'model = vae.VAE.from_pretrained("{repo_id}")']
    lines += [f'prior = vae.LatentPrior.from_pretrained("{repo_id}")'] * prior
    lines += [f"images = {drawn if config.variational or prior else rebuilt}  # in [-1, 1]"]
    return "\n".join(["```python", *lines, "```", "", "`vae` is the package that trained it."])


def _table(metrics: dict, variational: bool) -> str:
    test, lpips = metrics["test"], metrics["config"].get("lpips_variant")
    rate = {name: test[name] for name in ("kl", "neg_elbo") if name in test}
    rows = {"z ~ q(z\\|x)": test["sample"] | rate, "the mean of q(z\\|x)": test.get("mean", {})}
    rows = rows if variational else {"the encoder's z": test["sample"]}
    names = [name for name in DIGITS if any(name in row for row in rows.values())]
    lines = [["from", *(TITLES[name] for name in names)], ["---"] * (len(names) + 1)]
    for where, row in rows.items():
        cells = (f"{row[name]:.{DIGITS[name]}f}" if name in row else "–" for name in names)
        lines.append([where, *cells])
    said = f"{test['images']:,} test images; data range 2."
    said += f" LPIPS ({lpips}) on {test['lpips_images']:,} of them." * ("lpips" in names)
    return "\n".join([said, "", *(f"| {' | '.join(line)} |" for line in lines)])


def _training(metrics: dict) -> str:
    config, environment = metrics["config"], metrics.get("environment", {})
    own, rows = metrics.get("sharpen", config), metrics["history"]["train"]
    seconds = metrics.get("seconds", {}).get("training")
    facts = {
        "training images": own.get("max_train_images") or "all", "passes": own.get("epochs"),
        "steps": rows[-1]["step"] if rows else None, "images a step": own.get("batch_size"),
        "beta, the KL's weight": config.get("beta"), "seed": own.get("seed"),
        "minutes": seconds and round(seconds / 60, 1), "hardware": environment.get("hardware"),
        "PyTorch": environment.get("torch"), "the code's commit": environment.get("commit"),
    }  # fmt: skip
    lines = [f"| {name} | {value} |" for name, value in facts.items() if value is not None]
    return "\n".join(["| | |", "| --- | --- |", *lines])
