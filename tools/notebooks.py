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
NOTEBOOKS = {f"vae_latent_{size}": (size, 7, beta) for size, beta in SHIPPED_BETA.items()}
NOTEBOOKS |= {f"{name}_on_1x1": (size, 1, 1) for name, (size, *_) in NOTEBOOKS.items()}
NOTEBOOKS["own_images"] = (4, 8, 0.3)
DIGITS = {"dataset": "mnist", "of": "", "subject": "a handwritten digit, 784 pixels"}
EMOJI = {"dataset": "folder:emoji", "of": ", of your own pictures",
         "subject": "a picture of your own, here one of 725 emoji in 32 × 32 pixels and three "
         "colours, which come with the repository"}  # fmt: skip
WIDGET = "application/vnd.jupyter.widget-view+json"
METADATA = {
    "accelerator": "GPU",  # what Colab starts it on
    "colab": {"gpuType": "T4", "provenance": []},
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


def notebook_path(name: str) -> Path:
    return FOLDER / f"{name}.ipynb"


def generate(name: str) -> nbformat.NotebookNode:
    """One of NOTEBOOKS, which are latent size, grid and beta, without outputs."""
    text = (FOLDER / "template.md").read_text("utf-8")
    size, grid, beta = NOTEBOOKS[name]
    values = {
        "name": name,
        "knob": 1 if grid == 1 else None,
        "size": size,
        "grid": grid,
        "beta": beta,
        "values": size * grid**2,
    }
    values |= EMOJI if name == "own_images" else DIGITS
    of_all = {"repository": stamped(), "branch": branch(), "page": page(stamped())}
    for word, value in (of_all | values).items():
        text = text.replace("{{" + word + "}}", str(value))
    notebook = jupytext.reads(text, fmt="md")
    notebook.metadata = nbformat.from_dict(METADATA)
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
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
