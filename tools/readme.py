"""Write the tables and badges of the README and of docs/ from the files that they come from.

    python tools/readme.py

Each stands on one page, between `<!-- name -->` and `<!-- /name -->`; nothing else is touched.
"""

import re
from pathlib import Path

import evidence as claims
import likelihood as likelihoods
import seeds
import speedrun as speedruns
from address import branch, stamped
from common import ASSETS, ROOT, read_json
from comparisons import BETAS, curve_points
from generation import BEFORE_AND_AFTER, BOTH
from peer_rows import ROWS as PEERS
from peer_rows import TABLE as PEERS_TABLE
from terms import SEEN, spread

from vae_show.showcase import REFERENCE
from vae_store.folder import read_metrics

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
GALLERY = (2, 4, 16)
APART = 0.03  # from which on a table says that the judges disagree
MEANT = {f"global_{size}": f"{size} numbers, MSE + KL" for size in GALLERY}
OTHERS = {"emoji": "emoji, 32×32, RGB", "emoji_64": "emoji, 64×64, RGB",
          "fashion_mnist": "Fashion-MNIST, 28×28, grey"}  # fmt: skip
MEANT |= {f"sharp_{size}": f"{size} numbers, sharpened" for size in GALLERY}
MEANT |= {"conditional_16": "16 numbers and the label, MSE + KL"}
MEANT |= {"sharp_conditional_16": "16 numbers and the label, sharpened"}


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def gallery() -> str:
    """The badges that open the notebooks in Colab, and the GIFs: as many in a row as fit."""
    site = "https://colab.research.google.com"
    gifs = {"latent": [], "reconstruction": []}
    lines = []
    for grid, end in (("7×7", ""), ("1×1", "_on_1x1")):
        names = [(f"{size} on {grid}", f"vae_latent_{size}{end}") for size in GALLERY]
        lines.append("latent size " + " · ".join(
            f"{shown} [![Open latent size {shown} in Colab]({site}/assets/colab-badge.svg)]"
            f"({site}/github/{stamped()}/blob/{branch()}/notebooks/{name}.ipynb)"
            for shown, name in names
        ))  # fmt: skip
    lines.append(
        f"your own images [![Open your own images in Colab]({site}/assets/colab-badge.svg)]"
        f"({site}/github/{stamped()}/blob/{branch()}/notebooks/own_images.ipynb)"
    )
    for size in GALLERY:
        for kind, shown in gifs.items():
            source = f"assets/latent_{size}/{kind}.gif"
            shown.append(
                f'<img width="270" alt="{kind}s of size {size} as they form" src="{source}">'
            )
    return "\n\n".join([*lines, *("\n".join(shown) for shown in gifs.values())])


def results() -> str:
    """The shipped models beside the reference."""
    rows = []
    for size, (mse, ssim, psnr) in REFERENCE.items():
        metrics = read_metrics(ASSETS / f"latent_{size}")
        test, sample = metrics["test"], metrics["test"]["sample"]
        rows.append(
            [f"{size}", f"{test['latent_values']}", f"{metrics['config']['beta']:g}",
             f"**{sample['mse']:.5f}**", f"**{sample['ssim']:.4f}**", f"**{sample['psnr']:.2f}**",
             f"{test['kl']:.0f}", f"{mse:.4f}", f"{ssim:.4f}", f"{psnr:.2f}"]
        )  # fmt: skip
    header = ["latent size", "numbers", "β", "MSE", "SSIM", "PSNR, dB", "KL, nats",
              "reference's MSE", "SSIM", "PSNR, dB"]  # fmt: skip
    return table(header, rows)


def own_images() -> str:
    """What was trained on other images than MNIST's."""
    rows = []
    for folder, shown in OTHERS.items():
        metrics = read_metrics(ASSETS / folder)
        test, model = metrics["test"], metrics["config"]["model"]
        sample, last = test["sample"], metrics["history"]["train"][-1]
        seen = last["step"] * metrics["config"]["batch_size"]
        seconds = metrics["seconds"]["training"]
        grid = f"{model['latent_size']} on {model['latent_grid']}×{model['latent_grid']}"
        rows.append(
            [shown, grid, f"{test['latent_values']}", f"{seen:,}", f"{seconds / 60:.0f} min",
             f"{sample['mse']:.4f}", f"{sample['ssim']:.3f}", f"{sample['psnr']:.1f}",
             f"{sample['lpips']:.3f}", f"{test['kl']:.0f}"]
        )  # fmt: skip
    header = ["images", "latent", "numbers", "images seen", "training", "MSE", "SSIM", "PSNR, dB",
              "LPIPS", "KL, nats"]  # fmt: skip
    return table(header, rows)


def ablation() -> str:
    """What each loss term does to digits of four numbers, over three seeds."""
    columns = {  # form, and the value in a row
        "MSE": (".4f", lambda row: row["sample"]["mse"]),
        "LPIPS": (".4f", lambda row: row["sample"]["lpips"]),
        "grey pixels, %": (".1f", lambda row: 100 * row["reconstructions"]["grey"]),
        "digit-FID": (".1f", lambda row: row["reconstructions"]["fid"]),
        "recognised, %": (".1f", lambda row: 100 * row["reconstructions"]["recognised"]),
        "read as the original, %": (".1f", lambda row: 100 * row["reconstructions"]["accuracy"]),
        "digit-FID of draws": (".1f", lambda row: row["N(0, I)"]["fid"]),
        "draws recognised, %": (".1f", lambda row: 100 * row["N(0, I)"]["recognised"]),
    }
    rows = []
    for variant, seen in SEEN.items():
        cells = []
        for form, value in columns.values():
            mean, deviation = spread(variant, value)
            cells.append(f"{mean:{form}} ± {deviation:{form}}")
        rows.append([variant.replace(" ", "&nbsp;"), *cells, seen])
    return table(["loss", *columns, "what is seen"], rows)


def rates() -> str:
    """Rate and PSNR for each size and beta: the points of rate_distortion.png."""
    points, rows = curve_points(), []
    for size in REFERENCE:
        tests = [points[f"{size}, beta {beta}"]["test"] for beta in BETAS]
        cells = [f"{test['kl']:.0f} nats, {test['sample']['psnr']:.2f} dB" for test in tests]
        rows.append([str(size), *cells])
    return table(["latent size", *(f"β = {beta}" for beta in BETAS)], rows)


def speedrun() -> str:
    """How soon a training that is made for it passes the reference's row."""
    header = ["latent size", "images", "seconds of training: median (least to most)",
              "times faster than the reference", "MSE, the worst of three (the reference's)",
              "SSIM", "PSNR, dB", "KL, nats"]  # fmt: skip
    return table(header, speedruns.table())


def sizes() -> str:
    """What each latent size is on both grids, in short."""
    drawn, rows = read_json(ASSETS / "generation.json"), []
    for grid, kind in (("7×7", "latent"), ("1×1", "global")):
        for size in GALLERY:
            test = read_metrics(ASSETS / f"{kind}_{size}")["test"]
            better = f"sharp_{size}, N(0, I)" if kind == "global" else f"latent_{size}, prior"
            shares = [drawn[row]["recognised"] for row in (f"{kind}_{size}, N(0, I)", better)]
            rows.append(
                [f"{size} on {grid}", f"{test['latent_values']}", f"{test['sample']['mse']:.4f}",
                 f"{test['sample']['psnr']:.1f}", f"{test['kl']:.0f}",
                 *(f"{share:.0%}" for share in shares)]
            )  # fmt: skip
    header = ["latent size", "numbers for an image", "MSE", "PSNR, dB", "KL, nats",
              "draws recognised", "with a learned prior, or sharpened"]  # fmt: skip
    return table(header, rows)


def knobs() -> str:
    """What to turn, on the command line and in a notebook, and what it was measured to do."""
    points, drawn = curve_points(), read_json(ASSETS / "generation.json")
    runs = {name: read_metrics(ASSETS / name)["test"] for name in
            ("latent_2", "latent_4", "latent_16", "global_16", "conditional_16")}  # fmt: skip
    terms = {
        name: row["test"]["sample"] for name, row in read_json(ASSETS / "ablation.json").items()
    }

    def psnr(test: dict) -> str:
        return f"{test['sample']['psnr']:.1f} dB"

    def point(size: int, beta: float) -> str:
        test = points[f"{size}, beta {beta:g}"]["test"]
        return f"{test['kl']:.0f} nats, {psnr(test)}"

    def recognised(row: str) -> str:
        return f"{drawn[row]['recognised']:.0%}"

    plain, full = terms["MSE + KL"], terms["all four"]
    rows = [
        ["`LATENT_SIZE`<br>`--latent-size`", "channels of the latent; fewer are blurrier",
         "7×7: " + ", ".join(f"{size}: {psnr(runs[f'latent_{size}'])}" for size in (16, 4, 2))],
        ["`LATENT_GRID`<br>`--latent-grid`", "7: a map of 49 vectors; 1: one vector",
         f"size 16: {psnr(runs['latent_16'])} and {psnr(runs['global_16'])}"],
        ["`BETA`<br>`--beta`", "weight of the KL: less is sharper, at a higher rate (see below)",
         f"size 2, β = 1: {point(2, 1)}; β = 0.1: {point(2, 0.1)}"],
        ["`EPOCHS`<br>`--epochs`", "passes over the digits",
         f"size 2, β = 0.1: {psnr(points['2, beta 0.1']['test'])} after one over 24,000 (MSE + "
         f"KL), {psnr(runs['latent_2'])} after three over 60,000 (all four terms)"],
        ["`CONDITIONAL`<br>`--num-classes 10`", "the model is told the digit; you can ask for one",
         f"16 numbers: draws recognised {recognised('global_16, N(0, I)')} without, "
         f"{recognised('conditional_16, N(0, I)')} with"],
        ["`--w-perceptual 0`<br>`--w-adversarial 0`", "leave out LPIPS, the PatchGAN",
         f"size 4: LPIPS {full['lpips']:.4f} with both, {plain['lpips']:.4f} without; "
         f"{full['psnr']:.1f} and {plain['psnr']:.1f} dB"],
        ["`sharpen`", "a sharper decoder for the same numbers, on 1×1",
         "4 numbers: grey pixels "
         + " without, ".join(f"{drawn[f'{name}_4, reconstructions']['grey']:.0%}"
                             for name in ("global", "sharp")) + " with"],
        ["`train-prior`", "a learned prior: new digits on 7×7",
         f"size 4: draws recognised {recognised('latent_4, N(0, I)')} without, "
         f"{recognised('latent_4, prior')} with"],
    ]  # fmt: skip
    return table(["knob", "what it does", "measured"], rows)


def latent_sizes() -> str:
    """The same sizes as one vector and as a 7x7 map of vectors."""
    drawn, bounds = (read_json(ASSETS / f"{name}.json") for name in ("generation", "bounds"))
    rows = []
    for size in GALLERY:
        for kind, grid in (("global", "1×1"), ("latent", "7×7")):
            name = f"{kind}_{size}"
            metrics = read_metrics(ASSETS / name)
            test, sample = metrics["test"], metrics["test"]["sample"]
            draws, bound = drawn[f"{name}, N(0, I)"], bounds.get(name)
            rows.append(
                [f"{size} on {grid}", f"{test['latent_values']}", f"{metrics['config']['beta']:g}",
                 f"{sample['mse']:.4f}", f"{sample['ssim']:.4f}", f"{sample['psnr']:.2f}",
                 f"{test['kl']:.0f}", f"{test['neg_elbo']:.0f}",
                 f"{bound['neg_bound']:.0f} ({bound['neg_elbo_one_draw']:.0f})" if bound else "–",
                 f"{bound['active_units']}" if bound else "–",
                 f"{draws['fid']:.1f}", f"{draws['recognised']:.0%}"]
            )  # fmt: skip
    header = ["latent size", "numbers", "β", "MSE", "SSIM", "PSNR, dB", "KL, nats",
              "−ELBO, nats", "−bound of K = 500 (of 1)", "values in use", "digit-FID of N(0, I)",
              "recognised"]  # fmt: skip
    return table(header, rows)


def both(scores: dict, key: str, form: str) -> str:
    """A score by the judge and, in brackets, by the second; a dagger where they disagree."""
    if key not in scores:
        return "–"
    first, second = scores[key], scores["second"][key]
    apart = form.endswith("%") and abs(first - second) > APART
    return f"{first:{form}} ({second:{form}})" + "&nbsp;†" * apart


def generation() -> str:
    """What the judges make of draws, reconstructions, real digits, and another project's draws."""
    rows, scored = [], read_json(ASSETS / "generation.json")
    scored["pythae's VAE, 16 numbers, N(0, I)"] = read_json(ASSETS / "pythae.json")["scores"]
    for name, row in scored.items():
        if name.startswith("sharp"):
            continue
        rows.append(
            [name.replace("_", " "), both(row, "fid", ".2f"), both(row, "recognised", ".1%"),
             both(row, "accuracy", ".1%"), f"{row['precision']:.2f}, {row['recall']:.2f}",
             f"{min(row['classes']):.1%} to {max(row['classes']):.1%}",
             f"{row['nearest']:.3f}" if "nearest" in row else "–"]
        )  # fmt: skip
    header = ["images", "digit-FID", "recognised > 0.9", "read as the original, or as asked for",
              "precision, recall", "share of a digit",
              "MSE to the nearest training digit, median"]  # fmt: skip
    return table(header, rows)


def sharpness() -> str:
    """The models on 1x1, before and after sharpening."""
    rows, scored = [], read_json(ASSETS / "generation.json")
    pairs = [BEFORE_AND_AFTER[n : n + 2] for n in range(0, len(BEFORE_AND_AFTER), 2)]
    compared = [(name, source) for pair in pairs for source in BOTH for name in pair]
    for model, source in [("test digits", ""), *compared]:
        row = scored[f"{model}, {source}".strip(", ")]
        rows.append(
            [", ".join([MEANT.get(model, model), source]).strip(", "),
             f"{row['mse']:.4f}" if "mse" in row else "–",
             f"{row['lpips']:.3f}" if "lpips" in row else "–", f"{row['grey']:.1%}",
             both(row, "fid", ".2f"), both(row, "recognised", ".1%"), both(row, "accuracy", ".1%"),
             f"{row['precision']:.2f}, {row['recall']:.2f}",
             f"{row['density']:.2f}, {row['coverage']:.2f}", f"{row['nearest']:.3f}"]
        )  # fmt: skip
    header = ["images", "MSE", "LPIPS", "grey pixels", "digit-FID", "recognised > 0.9",
              "read as the original, or as asked for", "precision, recall", "density, coverage",
              "MSE to the nearest training digit, median"]  # fmt: skip
    return table(header, rows)


def autoencoder() -> str:
    """Each plain autoencoder beside the variational one with the same network."""
    rows = []
    for name, pair in read_json(ASSETS / "autoencoder.json").items():
        for kind in ("plain", "variational"):
            row = pair[kind]
            drawn = [row[source] for source in ("N(0, I)", "fitted Gaussian")]
            rows.append(
                [name.replace("x", "×"), kind, f"{row['mse']:.4f}",
                 *(f"{scores['fid']:.1f}, {scores['recognised']:.0%}" for scores in drawn),
                 *(f"{row['noise'][share]['accuracy']:.0%}" for share in ("0.2", "0.5", "1.0")),
                 f"{row['midpoints']:.0%}"]
            )  # fmt: skip
    header = ["latent size", "autoencoder", "MSE", "draws from N(0, I): digit-FID, recognised",
              "draws from a Gaussian fitted to its codes", "digits still right after noise of 0.2",
              "0.5", "1 standard deviation", "midpoints recognised"]  # fmt: skip
    return table(header, rows)


def chance() -> str:
    """How much of each latent's numbers is the seed's."""
    return table(["latent size", "seeds", "MSE", "SSIM", "PSNR, dB", "KL, nats"], seeds.table())


def differences() -> str:
    """What is left of a comparison beside chance."""
    return table(["against the latent with its usual terms", "MSE", "SSIM", "PSNR, dB", "KL, nats"],
                 seeds.differences())  # fmt: skip


def likelihood() -> str:
    """How likely black and white digits are, beside what others have published."""
    header = ["numbers", "−ELBO", "−log p(x), bound of K = 1,000", "by a sum over the plane",
              "Davidson et al., Gaussian", "Davidson et al., on a sphere"]  # fmt: skip
    return table(header, likelihoods.table())


def peers() -> str:
    """Other projects' VAEs that trained as long as ours with the same latent."""
    rows, made = [], read_json(PEERS_TABLE)
    for name, peer in PEERS.items():
        if not (row := made.get(name)):
            continue
        draws = row["draws"]
        rows.append(
            [peer.latent, peer.title, f"{row['parameters'] / 1e6:.2f} million",
             f"{row['source']['lines']} in {row['source']['files']}",
             f"{row['images']:,} in {row['seconds']:.0f} s",
             f"{row['images'] / row['seconds']:,.0f}", f"{row['mse']:.4f}", f"{row['ssim']:.3f}",
             f"{row['psnr']:.1f}", f"{row['kl']:.1f}", both(draws, "fid", ".1f"),
             both(draws, "recognised", ".1%")]
        )  # fmt: skip
    header = ["latent size", "VAE", "parameters", "lines of code, files", "images seen",
              "images/s", "MSE", "SSIM", "PSNR, dB", "KL, nats", "digit-FID of N(0, I)",
              "recognised"]  # fmt: skip
    return table(header, rows)


def evidence() -> str:
    """Every claim with what shows it."""
    return table(["claim", "command", "number", "spread", "machine"], claims.rows())


BLOCKS = (
    gallery, results, own_images, sizes, knobs, ablation, rates, speedrun, latent_sizes,
    generation, sharpness, autoencoder, chance, differences, likelihood, peers, evidence,
)  # fmt: skip


def filled(pages: dict[Path, str]) -> dict[Path, str]:
    """The pages' texts with every block as its source has it now."""
    for block in BLOCKS:
        name, new = block.__name__, block().replace("\\", r"\\")
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.S)
        found = 0
        for page, text in pages.items():
            pages[page], count = pattern.subn(rf"\g<1>{new}\n\g<2>", text)
            found += count
        if found != 1:
            raise ValueError(f"{found} pages have a block <!-- {name} -->: one is expected")
    return pages


if __name__ == "__main__":
    for page, text in filled({page: page.read_text("utf-8") for page in PAGES}).items():
        page.write_text(text)
