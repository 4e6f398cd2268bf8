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
import nbclient
import nbformat
from address import branch, page, stamped
from common import ROOT
from trainings import SHIPPED_BETA

FOLDER = ROOT / "notebooks"
OF_ALL = {"dataset": "mnist", "image": "1 × 28 × 28", "thing": "digit", "epochs": "3",
          "pretrained": "USE_PRETRAINED"}  # fmt: skip
LATENT = OF_ALL | {
    "story": "latent", "title": "A variational autoencoder with latent size {{size}}", "map": 7,
    "grid_of": "LATENT_GRID", "conditional": "CONDITIONAL",
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
        "map": 1, "beta": 1, "grid_of": "1", "epochs": "6",
        "plane": "Two values are drawn as they are.", "classes": "",
        "blur": "With so few values, the blur stays.", "reference": "",
        "beside": "All are one vector: size 2 is two values.",
    },
    "new_digits": OF_ALL | {
        "story": "new", "title": "New digits: a prior that is learned", "size": 4, "map": 7,
        "beta": SHIPPED_BETA[4], "grid_of": "None", "conditional": "False",
    },
    "own_images": LATENT | {
        "story": "own", "title": "A variational autoencoder of your own pictures", "size": 4,
        "map": 8, "beta": 0.3, "dataset": "folder:emoji", "image": "3 × 32 × 32",
        "thing": "emoji", "reference": "", "pretrained": "False",
    },
}  # fmt: skip
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "accelerator": "GPU",  # what Colab starts it on
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python", "file_extension": ".py"},
}


def code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def generate(name: str) -> nbformat.NotebookNode:
    """One of NOTEBOOKS, without outputs."""
    text, values = (FOLDER / "template.md").read_text("utf-8"), dict(NOTEBOOKS[name])
    story, size, side = (values[key] for key in ("story", "size", "map"))
    block = re.compile(r"\{\{#([\w ]+)\}\}\n(.*?)\{\{/\}\}\n", re.DOTALL)
    text = block.sub(lambda found: found[2] * (story in found[1].split()), text)
    latent = f"{size} × {side} × {side}" if side > 1 else f"{size} values"
    values |= {"name": name, "values": size * side**2, "repository": stamped(), "branch": branch(),
               "page": page(stamped()), "image": values["image"].center(14),
               "latent": latent.center(14)}  # fmt: skip
    for word, value in values.items():
        text = text.replace("{{" + word + "}}", str(value))
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
    pair = code_cells(new), code_cells(old)
    codes = [[re.sub(r"github\.com/[\w.-]+/[\w.-]+", "", cell.source) for cell in cells]
             for cells in pair]  # fmt: skip
    if codes[0] != codes[1]:
        return False
    for cell, executed in zip(*pair, strict=True):
        cell.outputs, cell.execution_count = executed.outputs, executed.execution_count
    return True


def execute(notebook: nbformat.NotebookNode, directory: Path) -> None:
    """Run all cells with `directory` as the working directory; outputs go into `notebook`.

    Widgets leave no picture behind, so that their outputs (the progress bars) are taken out.
    """
    nbclient.execute(notebook, str(directory), timeout=None, coalesce_streams=True,
                     record_timing=False, store_widget_state=False)  # fmt: skip
    notebook.metadata = nbformat.from_dict(METADATA)  # nbclient adds the kernel's versions
    for cell in code_cells(notebook):
        cell.outputs = [o for o in cell.outputs if WIDGET not in o.get("data", {})]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--execute", action="store_true", help="run them, each training in full")
    parser.add_argument("--only", nargs="+", choices=NOTEBOOKS, help="these alone")
    options = parser.parse_args()
    full = os.environ.get("VAE_BUDGET", "full")  # what a reader with a GPU gets
    for name in options.only or NOTEBOOKS:
        os.environ["VAE_BUDGET"] = "quick" if name == "own_images" else full
        path, notebook = FOLDER / f"{name}.ipynb", generate(name)
        kept = path.is_file() and keep_outputs(notebook, nbformat.read(path, 4))
        if options.execute:
            execute(notebook, FOLDER)
        elif not kept:
            print(f"{path.name}: its code changed, run `python tools/notebooks.py --execute`")
        nbformat.write(notebook, path)
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
