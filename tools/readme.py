"""Write the tables of the README and of docs/ from the files that they come from.

    python tools/readme.py

Each stands on one page, between `<!-- name -->` and `<!-- /name -->`; nothing else is touched.
`tables.md` has the heading of each table and the form of its lines: in braces stand paths into the
files of `assets/`, or values of the rows below. A line with row values is repeated for each row.
"""

import re
from collections import ChainMap
from pathlib import Path
from statistics import NormalDist

import trainings
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
QUALITY = ("mse", "psnr", "kl")  # over several seeds


class Spread(NormalDist):
    """Mean ± standard deviation, which are printed in the same form."""

    def __format__(self, form: str) -> str:
        return f"{self.mean:{form}} ± {self.stdev:{form}}"


class Difference(NormalDist):
    """A difference, which is called none where its standard deviation is larger."""

    def __format__(self, form: str) -> str:
        shown = f"{self.mean:+{form}} ± {self.stdev:{form}}"
        return shown if abs(self.mean) > self.stdev else f"none ({shown})"


def run(name: str) -> dict:
    """A shipped run's metrics, its machine, and how many images it saw."""
    metrics = shipped(name)
    here, last = metrics["environment"], metrics["history"]["train"][-1]
    threads = f"{here['threads']} thread{'s' * (here['threads'] > 1)}"
    seen = last["step"] * metrics["config"]["batch_size"]
    return metrics | {"machine": f"{here['hardware']}, {threads}", "seen": seen}


def marked(scores: dict) -> dict:
    """The first judge's scores, with a dagger at a share that is far from the second judge's."""
    texts = {key: f"{scores[key]:.1%}"
             + "&nbsp;†" * (abs(scores[key] - scores["second"][key]) > APART)
             for key in ("recognised", "accuracy") if key in scores}  # fmt: skip
    return scores | texts


def on_grid(size: int, kind: str) -> dict:
    """A shipped model's metrics, bound and scores."""
    name = f"{kind}_{size}"
    better = f"latent_{size}, prior" if kind == "latent" else f"sharp_{size}, N(0, I)"
    return shipped(name) | {
        "size": size, "grid": LATENTS[kind], "bound": row(f"bounds/{name}"),
        "drawn": row(f"generation/{name}, N(0, I)"), "better": row(f"generation/{better}"),
    }  # fmt: skip


def over_seeds(variant: str) -> dict[str, Spread]:
    """The numbers of the ablation's variant over its seeds; shares in percent."""
    runs = [row(trainings.terms_row(trainings.ABLATED, variant, seed))
            for seed in trainings.TERMS_SEEDS]  # fmt: skip
    runs = [one["sample"] | one["reconstructions"] for one in runs]
    scales = {"mse": 1, "lpips": 1, "fid": 1, "grey": 100, "recognised": 100}
    return {key: Spread.from_samples([scale * one[key] for one in runs])
            for key, scale in scales.items()}  # fmt: skip


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
    shown = {"test digits": "test digits"}
    shown |= {f"{name}, {source}": f"{MEANT[name]}, {source}"
              for pair in PAIRS for source in BOTH for name in pair}  # fmt: skip
    return [marked(row(f"generation/{key}")) | {"name": name} for key, name in shown.items()]


def seeds(name: str) -> dict:
    """The numbers of a latent, or of a variant of it, over the seeds that are there."""
    first = [trainings.measured(shipped("latent_2"))] if name == trainings.IN_FULL else []
    runs = first + list(row(f"seeds/{name}").values())
    found = {key: [run[key] for run in runs if key in run] for key in QUALITY}
    spreads = {key: Spread.from_samples(v) for key, v in found.items() if len(v) > 1}
    return spreads | {"name": name.replace("x", "×"), "count": len(runs)}


def difference(name: str, like: str) -> dict:
    """What a variant's numbers are more than the usual ones."""
    these, usual = seeds(name), seeds(like)
    apart = {key: these[key] - usual[key] for key in QUALITY if key in these}
    shown = {key: Difference(gap.mean, gap.stdev) for key, gap in apart.items()}
    return shown | {"name": these["name"]}


def peers() -> list[dict]:
    """Ours, and other projects' VAEs that trained as long with the same latent."""
    made = read_json(ASSETS / "peers.json")
    return [made[name] | {"peer": peer, "drawn": marked(made[name]["draws"]),
                          "millions": made[name]["parameters"] / 1e6}
            for name, peer in PEERS.items() if name in made]  # fmt: skip


def evidence() -> dict:
    """What the claims' numbers are computed of."""
    shares = {name: scores["recognised"]
              for name, scores in read_json(ASSETS / "generation.json").items()}  # fmt: skip
    shares["plain"] = row("autoencoder/16 on 1x1/plain")["N(0, I)"]["recognised"]
    names = ("16 on 7x7", "4 on 7x7", trainings.IN_FULL)
    return {
        "chance": {name: seeds(name) for name in names},
        "theirs": REFERENCE,
        "blur": {variant: over_seeds(variant)["grey"] for variant in trainings.TOLD},
        "runs": {summary["size"]: summary for summary in speedrun()},
        "error": {name: 100 * (share * (1 - share) / 10_000) ** 0.5
                  for name, share in shares.items()},
    }  # fmt: skip


def tables() -> dict[str, str]:
    """The text of every table, by its name."""
    points = curve_points()
    rows = {
        "knobs": [{}], "likelihood": [{}], "evidence": [evidence()],
        "speedrun": speedrun(), "peers": peers(),
        "generation": generation(), "sharpness": sharpness(),
        "results": [shipped(f"latent_{size}") | {"size": size, "theirs": REFERENCE[size]}
                    for size in SIZES],
        "own_images": [run(name) | {"shown": shown} for name, shown in OTHERS.items()],
        "sizes": [on_grid(size, kind) for kind in ("latent", "global") for size in SIZES],
        "latent_sizes": [on_grid(size, kind) for size in SIZES for kind in ("global", "latent")],
        "ablation": [over_seeds(variant) | {"loss": shown}
                     for variant, shown in trainings.TOLD.items()],
        "rates": [{"size": size, "at": [points[f"{size}, beta {beta}"]["test"]
                                        for beta in trainings.BETAS]} for size in REFERENCE],
        "autoencoder": [scores | {"name": name.replace("x", "×"), "kind": kind}
                        for name, pair in read_json(ASSETS / "autoencoder.json").items()
                        for kind, scores in pair.items()],
        "chance": [seeds(name) for name in (*trainings.latents(), trainings.IN_FULL)],
        "differences": [difference(name, like)
                        for name, (like, _) in trainings.compared().items()],
    }  # fmt: skip
    assets = {path.stem: read_json(path) for path in ASSETS.glob("*.json")}
    assets |= {name: run(name) for name in trainings.shipped_commands()}
    return {name: table(name, [ChainMap(values, assets) for values in some])
            for name, some in rows.items()}  # fmt: skip


def filled() -> dict[Path, str]:
    """The pages' texts with every table as its source has it now."""
    made, block = tables(), re.compile(r"(<!-- (\w+) -->\n).*?(<!-- /\2 -->)", re.S)

    def fill(found: re.Match) -> str:
        return f"{found[1]}{made.pop(found[2])}\n{found[3]}"

    pages = {page: block.sub(fill, page.read_text("utf-8")) for page in PAGES}
    if made:
        raise ValueError(f"no page has a place for the tables {list(made)}")
    return pages


if __name__ == "__main__":
    for page, text in filled().items():
        page.write_text(text, "utf-8")
