"""Write the tables and badges of the README and of docs/ from the files that they come from.

    python tools/readme.py

Each stands on one page, between `<!-- name -->` and `<!-- /name -->`; nothing else is touched.
`tables.md` has the heading of each table and the form of its lines: in braces stand paths into the
files of `assets/`, or values of the rows below. A line with row values is repeated for each row.
"""

import math
import re
import statistics
from collections import ChainMap
from pathlib import Path
from typing import NamedTuple

import trainings
from address import branch, stamped
from common import ASSETS, ROOT, read_json, row, shipped, table
from measures import BOTH, PAIRS
from peers import ROWS as PEERS
from pictures import curve_points
from speedrun import summaries as speedrun
from trainings import SIZES

from vae.machinery.shipped import REFERENCE

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
APART = 0.03  # difference of shares from which on a table says that the judges disagree
MEANT = {f"global_{size}": f"{size} values, MSE + KL" for size in SIZES}
MEANT |= {f"sharp_{size}": f"{size} values, sharpened" for size in SIZES}
MEANT |= {"conditional_16": "16 values and the label, MSE + KL",
          "sharp_conditional_16": "16 values and the label, sharpened"}  # fmt: skip
LATENTS = {"latent": "7×7", "global": "1×1", "conditional": "1×1, conditional"}
OTHERS = {"emoji": "emoji, 32×32, RGB", "emoji_64": "emoji, 64×64, RGB",
          "fashion_mnist": "Fashion-MNIST, 28×28, grey"}  # fmt: skip
QUALITY = ("mse", "ssim", "psnr", "kl")  # over several seeds


class Spread(NamedTuple):
    """Mean ± standard deviation, which are printed in the same form."""

    mean: float
    stdev: float

    @classmethod
    def of(cls, values: list[float]) -> "Spread":
        return cls(statistics.mean(values), statistics.stdev(values))

    def __format__(self, form: str) -> str:
        return f"{self.mean:{form}} ± {self.stdev:{form}}"


class Difference(Spread):
    """A difference, which is called none where its standard deviation is larger."""

    def __format__(self, form: str) -> str:
        shown = f"{self.mean:+{form}} ± {self.stdev:{form}}"
        return shown if abs(self.mean) > self.stdev else f"none ({shown})"


class Assets(dict):
    """The files of `assets/`, each by its name, read when a form first names it."""

    def __missing__(self, name: str) -> dict:
        if (ASSETS / f"{name}.json").is_file():
            self[name] = read_json(ASSETS / f"{name}.json")
        elif (ASSETS / name).is_dir():
            self[name] = shipped(name)
            self[name]["machine"] = machine(self[name]["environment"])
        else:
            raise KeyError(name)
        return self[name]


def machine(environment: dict) -> str:
    """Hardware and threads."""
    threads = environment["threads"]
    return f"{environment['hardware']}, {threads} thread{'s' * (threads > 1)}"


def marked(scores: dict) -> dict:
    """The first judge's scores, with a dagger at a share that is far from the second judge's."""
    texts = {}
    for key in ("recognised", "accuracy"):
        if key in scores:
            apart = abs(scores[key] - scores["second"][key]) > APART
            texts[key] = f"{scores[key]:.1%}" + "&nbsp;†" * apart
    return scores | texts


def results() -> list[dict]:
    return [shipped(f"latent_{size}") | {"size": size, "theirs": REFERENCE[size]}
            for size in SIZES]  # fmt: skip


def own_images() -> list[dict]:
    rows = []
    for folder, shown in OTHERS.items():
        found = shipped(folder)
        seen = found["history"]["train"][-1]["step"] * found["config"]["batch_size"]
        rows.append(found | {"shown": shown, "seen": seen})
    return rows


def on_grid(size: int, kind: str) -> dict:
    """A shipped model's metrics, bound and scores."""
    name, grid = f"{kind}_{size}", LATENTS[kind]
    better = f"latent_{size}, prior" if kind == "latent" else f"sharp_{size}, N(0, I)"
    return shipped(name) | {
        "size": size, "grid": grid, "bound": row(f"bounds/{name}"),
        "drawn": row(f"generation/{name}, N(0, I)"), "better": row(f"generation/{better}"),
    }  # fmt: skip


def sizes() -> list[dict]:
    return [on_grid(size, kind) for kind in ("latent", "global") for size in SIZES]


def latent_sizes() -> list[dict]:
    return [on_grid(size, kind) for size in SIZES for kind in ("global", "latent")]


def over_seeds(variant: str) -> dict[str, Spread]:
    """The numbers of the ablation's variant over its seeds; shares in percent."""
    names = [trainings.terms_row(trainings.ABLATED, variant, seed)
             for seed in trainings.TERMS_SEEDS]  # fmt: skip
    runs, found = [row(name) for name in names], {}
    for part, keys in (("sample", ("mse", "lpips")),
                       ("reconstructions", ("fid", "grey", "recognised"))):  # fmt: skip
        for key in keys:
            times = 100 if key in ("grey", "recognised") else 1
            found[key] = Spread.of([times * one[part][key] for one in runs])
    return found


def ablation() -> list[dict]:
    return [over_seeds(variant) | {"loss": shown} for variant, shown in trainings.TOLD.items()]


def rates() -> list[dict]:
    tests = {name: point["test"] for name, point in curve_points().items()}
    return [{"size": size, "at": [tests[f"{size}, beta {beta}"] for beta in trainings.BETAS]}
            for size in REFERENCE]  # fmt: skip


def generation() -> list[dict]:
    scored = read_json(ASSETS / "generation.json")
    scored["pythae's VAE, 16 numbers, N(0, I)"] = read_json(ASSETS / "pythae.json")["scores"]
    rows = []
    for name, scores in scored.items():
        if not name.startswith("sharp") and "reconstructions" not in name:
            for folder, shown in LATENTS.items():
                name = re.sub(rf"{folder}_(\d+)", rf"\1 on {shown}", name)
            rows.append(marked(scores) | {"name": name})
    return rows


def sharpness() -> list[dict]:
    names = [(name, source) for pair in PAIRS for source in BOTH for name in pair]
    rows = [marked(row("generation/test digits")) | {"name": "test digits"}]
    for name, source in names:
        named = {"name": f"{MEANT[name]}, {source}"}
        rows.append(marked(row(f"generation/{name}, {source}")) | named)
    return rows


def autoencoder() -> list[dict]:
    return [scores | {"name": name.replace("x", "×"), "kind": kind}
            for name, pair in read_json(ASSETS / "autoencoder.json").items()
            for kind, scores in pair.items()]  # fmt: skip


def seeds(name: str) -> dict:
    """The numbers of a latent, or of a variant of it, over the seeds that are there."""
    first = [trainings.measured(shipped("latent_2"))] if name == trainings.IN_FULL else []
    runs = first + list(row(f"seeds/{name}").values())
    found = {key: [run[key] for run in runs if key in run] for key in QUALITY}
    spreads = {key: Spread.of(values) for key, values in found.items() if len(values) > 1}
    return spreads | {"name": name.replace("x", "×"), "count": len(runs)}


def chance() -> list[dict]:
    return [seeds(name) for name in (*trainings.latents(), trainings.IN_FULL)]


def differences() -> list[dict]:
    rows = []
    for name, (like, _) in trainings.compared().items():
        these, usual = seeds(name), seeds(like)
        apart = {key: Difference(these[key].mean - usual[key].mean,
                                 math.hypot(these[key].stdev, usual[key].stdev))
                 for key in QUALITY if key in these}  # fmt: skip
        rows.append(apart | {"name": these["name"]})
    return rows


def peers() -> list[dict]:
    """Ours, and other projects' VAEs that trained as long with the same latent."""
    rows, made = [], read_json(ASSETS / "peers.json")
    for name, peer in PEERS.items():
        if found := made.get(name):
            more = {"peer": peer, "drawn": marked(found["draws"]),
                    "millions": found["parameters"] / 1e6}  # fmt: skip
            rows.append(found | more)
    return rows


def evidence() -> list[dict]:
    """One row: what the claims' numbers are computed of."""
    shares = {name: scores["recognised"]
              for name, scores in read_json(ASSETS / "generation.json").items()}  # fmt: skip
    shares["plain"] = row("autoencoder/16 on 1x1/plain")["N(0, I)"]["recognised"]
    names = ("16 on 7x7", "4 on 7x7", trainings.IN_FULL)
    return [{
        "chance": {name: seeds(name) for name in names},
        "theirs": REFERENCE,
        "blur": {variant: over_seeds(variant)["grey"] for variant in trainings.TOLD},
        "runs": {summary["size"]: summary for summary in speedrun()},
        "error": {name: 100 * (share * (1 - share) / 10_000) ** 0.5
                  for name, share in shares.items()},
    }]  # fmt: skip


START = "vae_latent_2"
STORIES = {  # what each notebook tells
    "vae_latent_2": "what a VAE is: built, trained, watched and measured",
    "vae_latent_4": "the same with 4 values at each position",
    "vae_latent_16": "the same with 16",
    "few_numbers": "2, 4 or 16 values for a whole image: a plane to walk in, blur, and its cure",
    "new_digits": "why samples of N(0, I) are no digits, and a second network whose samples are",
    "own_images": "all of it on emoji, or on your own pictures",
}


def gallery() -> str:
    """The badge to start with, the notebooks with theirs, and the GIFs."""
    colab = "https://colab.research.google.com"

    def badge(name: str) -> str:
        link = f"{colab}/github/{stamped()}/blob/{branch()}/notebooks/{name}.ipynb"
        return f"[![Open {name} in Colab]({colab}/assets/colab-badge.svg)]({link})"

    heading = "| notebook | its story |\n| --- | --- |"
    lines = [f"**Start here:** {badge(START)}", "", heading]
    for name, told in STORIES.items():
        lines.append(f"| [{name}](notebooks/{name}.ipynb)<br>{badge(name)} | {told} |")
    for kind in ("latent", "reconstruction"):
        lines += ["", *(f'<img width="270" alt="{kind}s of size {size} as they form" '
                        f'src="assets/latent_{size}/{kind}.gif">' for size in SIZES)]  # fmt: skip
    return "\n".join(lines)


ROWS = (results, own_images, sizes, ablation, rates, latent_sizes, generation, sharpness,
        autoencoder, chance, differences, peers, evidence)  # fmt: skip


def blocks() -> dict[str, str]:
    """The text of every block, by its name."""
    rows = {"knobs": [{}], "likelihood": [{}], "speedrun": speedrun()}
    rows |= {make.__name__: make() for make in ROWS}
    assets = Assets()
    found = {name: table(name, [ChainMap(values, assets) for values in some])
             for name, some in rows.items()}  # fmt: skip
    return found | {"gallery": gallery()}


def filled(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages' texts with every block as its source has it now."""
    for name, block in blocks().items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        found = 0
        for page, text in pages.items():
            pages[page], count = pattern.subn(lambda m, new=block: f"{m[1]}{new}\n{m[2]}", text)
            found += count
        if found != 1:
            raise ValueError(f"{found} pages have a block <!-- {name} -->: one is expected")
    return pages


if __name__ == "__main__":
    for page, text in filled({page: page.read_text("utf-8") for page in PAGES}).items():
        page.write_text(text, "utf-8")
