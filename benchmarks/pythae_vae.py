"""Train pythae's VAE for as long as ours was trained, on this machine; our judges score its draws.

    python benchmarks/pythae_vae.py

It is the peer of that name in `peers.py`, for as many seconds and with as many threads as
assets/global_16 had. The result goes to `assets/pythae.json`.
"""

import argparse
import json
import math

import peers  # puts tools/ on the path
from common import ASSETS, read_json
from generation import judged_twice

from vae.training.machine import Machine
from vae_store.environment import describe_environment
from vae_store.files import write_json
from vae_store.folder import read_metrics


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, help="default: those of assets/global_16")
    options = parser.parse_args()
    if options.seconds is not None and not 0 < options.seconds < math.inf:
        parser.error(f"--seconds {options.seconds:g}: a number above 0")
    ours = read_metrics(ASSETS / "global_16")
    drawn_by_ours = read_json(ASSETS / "generation.json")["global_16, N(0, I)"]
    seconds = options.seconds or ours["seconds"]["training"]
    _, draws, report = peers.peer("pythae", seconds, ours["environment"]["threads"])
    hardware = describe_environment(Machine("no"))["hardware"]
    report |= {"hardware": hardware, "scores": judged_twice(draws)}
    report["ours"] = {"seconds": ours["seconds"]["training"], "fid": drawn_by_ours["fid"],
                      "second_fid": drawn_by_ours["second"]["fid"],
                      "commit": ours["environment"]["commit"]}  # fmt: skip
    write_json(ASSETS / "pythae.json", report)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
