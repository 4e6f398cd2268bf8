"""Stamp the repository's address into everything that names it. Needs nothing but Python.

    python tools/address.py                        # the one in pyproject.toml, or of `origin`
    python tools/address.py OWNER/REPO --branch B  # as .github/workflows/address.yml does

Address and branch stand in `[project.urls]` of `pyproject.toml`. Links of the README, of the pages
and of the notebooks, to the repository and to the page that it publishes, are changed as text: what
the notebooks' cells printed stays.
"""

import argparse
import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
PLACEHOLDER = "OWNER/REPO"
FOLDERS = "notebooks|vae|docs|assets|tools"  # into which links lead
NAME, BRANCH = r"[\w.-]+/[\w.-]+?", r"\w[\w./@+#-]*?"
NAMING = ("pyproject.toml", "CITATION.cff", "README.md", "docs/*.md", "notebooks/*.ipynb")


def stamped(root: Path = ROOT) -> str:
    """OWNER/REPO, from the one place where the address stands."""
    text = (root / "pyproject.toml").read_text("utf-8")
    found = re.search(rf'^Repository = "https://github\.com/({NAME})"$', text, re.M)
    if not found:
        raise ValueError("pyproject.toml: [project.urls] Repository is not https://github.com/A/B")
    return found[1]


def branch(root: Path = ROOT) -> str:
    """The branch to which the links lead, which stands beside it."""
    text = (root / "pyproject.toml").read_text("utf-8")
    return re.search(
        rf'^Notebooks = "https://github\.com/{NAME}/blob/(.+)/notebooks/"$', text, re.M
    )[1]


def page(address: str) -> str:
    """Where GitHub publishes what OWNER/REPO has, written as given: a host's name knows no case."""
    owner, name = address.split("/")
    host = f"{owner}.github.io"
    return host if name.lower() == host.lower() else f"{host}/{name}"


def of_remote(root: Path = ROOT) -> str | None:
    """OWNER/REPO of the checkout's `origin`, if that is on GitHub."""
    command = ["git", "-C", str(root), "remote", "get-url", "origin"]
    found = subprocess.run(command, capture_output=True, text=True)
    return read_remote(found.stdout.strip()) if found.returncode == 0 else None


def read_remote(url: str) -> str | None:
    """OWNER/REPO of an address that git knows, by https or by ssh, or None."""
    start = r"(?:https://(?:[^/@]+@)?|(?:ssh://)?git@)(?:www\.|ssh\.)?github\.com(?::\d+)?[/:]"
    found = re.fullmatch(rf"{start}({NAME})(?:\.git)?/?", url)
    return found and found[1]


def stamp(new: str, onto: str | None = None, root: Path = ROOT) -> list[Path]:
    """Let every link that named the address name `new`, and the branch `onto`, if it is given.

    Returns the files that changed.
    """
    if not re.fullmatch(NAME, new):
        raise ValueError(f"address={new!r} is not allowed: OWNER/REPO is expected")
    if onto is not None and not re.fullmatch(BRANCH, onto):
        raise ValueError(
            f"branch={onto!r} is not allowed: letters, digits and ./@+#-_ are expected"
        )
    old, changed = re.escape(stamped(root)), []
    shown = page(stamped(root))
    deeper = "" if "/" in shown else "/?"  # below a bare host lie the owner's other repositories
    published = rf"//{re.escape(shown)}(?!{deeper}[\w-]|\.\w)"
    for path in sorted(path for pattern in NAMING for path in root.glob(pattern)):
        text = path.read_bytes().decode()  # as it is, line ends too
        now = re.sub(rf"(github(?:\.com)?/){old}(?![\w-]|\.(?!git\b)\w)", rf"\g<1>{new}", text)
        now = re.sub(published, f"//{page(new)}", now)
        if onto:
            ours = rf"(github(?:\.com)?/{re.escape(new)}/blob/){BRANCH}(?=/(?:{FOLDERS})/)"
            now = re.sub(ours, rf"\g<1>{onto}", now)
        if now != text:
            path.write_bytes(now.encode())
            changed.append(path)
    return changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("address", nargs="?", help="OWNER/REPO")
    parser.add_argument("--branch", help="to which the links lead; default: as they are")
    options = parser.parse_args()
    address, source = options.address or stamped(), "as it was given"
    if not options.address:
        source = "from pyproject.toml"
    if not options.address and address == PLACEHOLDER and (found := of_remote()):
        address, source = found, "from the remote `origin`"
    changed = stamp(address, options.branch)
    print(f"The repository's address: {address}, {source}. Files that changed: {len(changed)}")


if __name__ == "__main__":
    main()
