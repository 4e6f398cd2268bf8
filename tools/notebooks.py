"""Make the notebooks from their one source, `notebooks/template.md`.

    python tools/notebooks.py            # write them; a cell that did not change keeps its output
    python tools/notebooks.py --execute  # and run them, with a training in full of each
    python tools/notebooks.py --execute --only vae_latent_2  # this one alone

The repository's address comes from `[project.urls]` in `pyproject.toml`: see `tools/address.py`.
"""

import argparse
import os
import re
from pathlib import Path

import jupytext
import nbformat
from address import branch, page, stamped
from common import ROOT
from nbclient import NotebookClient
from trainings import SHIPPED_BETA

FOLDER = ROOT / "notebooks"
LATENT = {
    "story": "latent", "title": "A variational autoencoder with latent size {size}", "map": 7,
    "plane": "The plane is made by t-SNE, frame by frame: points drift and do not jump.",
    "classes": "Nobody told the model the classes: neighbours share them from the start, as in "
    "pixels.",
    "blur": "", "reference": "The reference is a published system of the same latent size; it has "
    "no KL in its loss, so that nothing bounds its rate.",
    "beside": "All are maps of 7 × 7 positions: size 2 is 98 values, and size 16 is 784, as many "
    "as an image has pixels. (What its values may tell is bounded by the KL.)",
}  # fmt: skip
NOTEBOOKS = {  # the values of each that `template.md` names; `story`: its blocks there
    **{f"vae_latent_{size}": LATENT | {"size": size, "beta": beta}
       for size, beta in SHIPPED_BETA.items()},
    "few_numbers": LATENT | {
        "story": "few", "title": "Few numbers: two values for a digit", "size": 2,
        "map": 1, "beta": 1,
        "plane": "Two values are drawn as they are.", "classes": "",
        "blur": "With so few values, the blur stays.", "reference": "",
        "beside": "All are one vector: size 2 is two values.",
    },
    "new_digits": {"story": "new", "title": "New digits: a prior that is learned", "size": 4,
                   "map": 7, "beta": SHIPPED_BETA[4]},
    "own_images": LATENT | {
        "story": "own", "title": "A variational autoencoder of your own pictures", "size": 4,
        "map": 8, "beta": 0.3, "dataset": "folder:emoji", "image": "3 × 32 × 32",
        "thing": "emoji", "reference": "",
    },
}  # fmt: skip
OF_ALL = {"dataset": "mnist", "image": "1 × 28 × 28", "thing": "digit", "epochs": "3"}
CODE = {  # what a story has in place of a knob
    "latent": ("LATENT_GRID", "CONDITIONAL", "USE_PRETRAINED"),
    "few": ("1", "CONDITIONAL", "USE_PRETRAINED"),
    "new": ("None", "False", "USE_PRETRAINED"),
    "own": ("LATENT_GRID", "CONDITIONAL", "False"),
}
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "accelerator": "GPU",  # what Colab starts it on
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py"},
}


def notebook_path(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def diagram(image: str, size: int, places: int, **_) -> str:
    """The way of an image through the model, with the shapes of this notebook."""
    latent = f"{size} × {places} × {places}" if places > 1 else f"{size} values"
    names = ("image", "latent", "reconstruction")
    boxes = [f"│ {text.center(max(len(text), 14))} │" for text in (image, latent, image)]
    edges = ["─" * (len(box) - 2) for box in boxes]
    rows = (
        [name.center(len(box)) for name, box in zip(names, boxes, strict=True)],
        [f"┌{edge}┐" for edge in edges], boxes, [f"└{edge}┘" for edge in edges],
    )  # fmt: skip
    gaps = ("", "", "── {} ──▶", "")
    ways = ("encoder", "decoder")
    lines = []
    for row, gap in zip(rows, gaps, strict=True):
        first, second = (gap.format(way) for way in ways)
        lines.append(f"{row[0]} {first:14} {row[1]} {second:14} {row[2]}".rstrip())
    return "\n".join(lines)


def generate(name: str) -> nbformat.NotebookNode:
    """One of NOTEBOOKS, without outputs."""
    text, values = (FOLDER / "template.md").read_text("utf-8"), OF_ALL | NOTEBOOKS[name]
    story, places = values["story"], values["map"]
    block = re.compile(r"\{\{#([\w ]+)\}\}\n(.*?)\{\{/\}\}\n", re.DOTALL)
    text = block.sub(lambda found: found[2] * (story in found[1].split()), text)
    values |= {"name": name, "values": values["size"] * places**2, "branch": branch(),
               "diagram": diagram(places=places, **values), "repository": stamped(),
               "page": page(stamped()), "subject": "a handwritten digit of 784 pixels"}  # fmt: skip
    values |= dict(zip(("grid_of", "conditional", "pretrained"), CODE[story], strict=True))
    values["epochs"] = "6" if story == "few" else "3"
    for word, value in values.items():
        text = text.replace("{{" + word + "}}", str(value).format(size=values["size"])
                            if word == "title" else str(value))  # fmt: skip
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if "setup" in cell.metadata.get("tags", ()):  # folded, in Colab and in JupyterLab
            cell.metadata |= {"cellView": "form", "jupyter": {"source_hidden": True}}
    return notebook


def keep_outputs(new: nbformat.NotebookNode, old: nbformat.NotebookNode) -> bool:
    """Take over the outputs of `old` if its code is the same but for the address."""

    def code(notebook: nbformat.NotebookNode) -> list[str]:
        return [
            re.sub(r"github\.com/[\w.-]+/[\w.-]+", "", cell.source)
            for cell in notebook.cells
            if cell.cell_type == "code"
        ]

    if code(new) != code(old):
        return False
    executed = iter(cell for cell in old.cells if cell.cell_type == "code")
    for cell in new.cells:
        if cell.cell_type == "code":
            source = next(executed)
            cell.outputs, cell.execution_count = source.outputs, source.execution_count
    return True


def execute(notebook: nbformat.NotebookNode, directory: Path) -> None:
    """Run all cells with `directory` as the working directory; outputs go into `notebook`.

    Widgets leave no picture behind, so that their outputs (the progress bars) are taken out.
    """
    client = NotebookClient(
        notebook, timeout=None, resources={"metadata": {"path": str(directory)}},
        coalesce_streams=True, record_timing=False, store_widget_state=False,
    )  # fmt: skip
    client.execute()
    notebook.metadata = nbformat.from_dict(METADATA)  # nbclient adds the kernel's versions
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="run them, each training in full")
    parser.add_argument("--only", nargs="+", choices=NOTEBOOKS, help="these alone")
    options = parser.parse_args()
    full = os.environ.get("VAE_BUDGET", "full")  # what a reader with a GPU gets
    for name in options.only or NOTEBOOKS:
        os.environ["VAE_BUDGET"] = "quick" if name == "own_images" else full
        path, notebook = notebook_path(name), generate(name)
        kept = path.is_file() and keep_outputs(notebook, nbformat.read(path, 4))
        if options.execute:
            execute(notebook, FOLDER)
        elif not kept:
            print(f"{path.name}: its code changed, run `python tools/notebooks.py --execute`")
        nbformat.write(notebook, path)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
