"""Put the emoji of an npm package into folders by category: the pictures of docs/own-images.md.

    npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz
    python tools/emoji.py package emoji
    python tools/emoji.py package notebooks/emoji --few  # faces, people and flags, in 32x32

The package is by Cal Henderson (MIT), the pictures are Twemoji, by Twitter and others (CC BY 4.0).
"""

import json
import re
import shutil
import sys
from pathlib import Path

from PIL import Image

FEW = {"face": "Smileys & Emotion/face", "person": "People & Body/person$|person-gesture",
       "flag": "Flags/country"}  # fmt: skip  # a class: the subcategories of it


def sort(package: Path, target: Path, few: bool = False) -> int:
    """Copy the pictures of 64x64 pixels, skin tones too; returns how many there are.

    `few`: those of FEW alone, on white, in 32x32 pixels and 64 colours.
    """
    pictures, names = package / "img" / "twitter" / "64", []
    for emoji in json.loads((package / "emoji.json").read_text("utf-8")):
        folder = re.sub(r"\W+", "_", emoji["category"].lower())
        if few:
            kind = f"{emoji['category']}/{emoji['subcategory']}"
            folder = next((name for name, form in FEW.items() if re.search(form, kind)), None)
        of_all_tones = [emoji, *emoji.get("skin_variations", {}).values()]
        names += [(folder, one["image"]) for one in of_all_tones if one["has_img_twitter"]]
    names = [(folder, name) for folder, name in names if folder]
    for folder, name in names:
        (target / folder).mkdir(parents=True, exist_ok=True)
        shutil.copyfile(pictures / name, target / folder / name)
        if few:
            shrink(target / folder / name)
    return len(names)


def shrink(path: Path) -> None:
    """Put a picture on white, in 32x32 pixels and 64 colours, in place."""
    picture = Image.open(path).convert("RGBA")
    picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    picture = picture.convert("RGB").resize((32, 32), Image.Resampling.LANCZOS)
    picture.quantize(64, dither=Image.Dither.NONE).save(path, optimize=True)


if __name__ == "__main__":
    print(sort(*map(Path, sys.argv[1:3]), few="--few" in sys.argv), "pictures")
