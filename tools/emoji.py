"""Put the emoji of an npm package into folders by category: the pictures of docs/own-images.md.

    npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz
    python tools/emoji.py package emoji

The package is by Cal Henderson (MIT), the pictures are Twemoji, by Twitter and others (CC BY 4.0).
"""

import json
import re
import shutil
import sys
from pathlib import Path


def sort(package: Path, target: Path) -> int:
    """Copy every picture of 64x64 pixels, skin tones too; returns how many there are."""
    pictures, names = package / "img" / "twitter" / "64", []
    for emoji in json.loads((package / "emoji.json").read_text("utf-8")):
        category = re.sub(r"\W+", "_", emoji["category"].lower())
        of_all_tones = [emoji, *emoji.get("skin_variations", {}).values()]
        names += [(category, one["image"]) for one in of_all_tones if one["has_img_twitter"]]
    for category, name in names:
        (target / category).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pictures / name, target / category / name)
    return len(names)


if __name__ == "__main__":
    print(sort(*map(Path, sys.argv[1:])), "pictures")
