"""Pack the four IDX files of MNIST into the package: verify each, then compress it.

python tools/pack_mnist.py FOLDER_WITH_THE_FOUR_IDX_FILES
"""

import gzip
import sys
from pathlib import Path

from vae.data import MNIST_FOLDER, MNIST_SHA256
from vae_store.files import FileError, sha256

if __name__ == "__main__":
    source = Path(sys.argv[1])
    for name, expected in MNIST_SHA256.items():
        data = (source / name).read_bytes()
        if sha256(data) != expected:
            raise FileError(f"{source / name} is not the published file (SHA-256)")
        target = MNIST_FOLDER / f"{name}.gz"
        target.write_bytes(gzip.compress(data, 9, mtime=0))
        print(f"{target}: {target.stat().st_size:,} bytes")
