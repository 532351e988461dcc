"""Does an import notice files that were damaged at random?

Run: ``python -m benchmarks.truth.fuzz_ingest 10000``. Prints how many imports were refused, gave a warning, or were
right anyway, and every one that was wrong without a word; exit code 1 if there is one.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests._support.mutations import KINDS, LAYOUTS, run

VERDICTS = ("refused", "warned", "same", "shorter", "slight", "WRONG")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("count", type=int, nargs="?", default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--source", action="append", choices=list(LAYOUTS))
    asked = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as place:
        found = run(asked.count, asked.seed, Path(place), tuple(asked.source or LAYOUTS))
    wall = time.perf_counter() - began
    for title, names, column in (("source", list(LAYOUTS), 0), ("mutation", list(KINDS), 1)):
        print(f"{title:20}" + "".join(f"{verdict:>9}" for verdict in VERDICTS))
        for name in names:
            counts = Counter(one[3].verdict for one in found if one[column] == name)
            if counts:
                print(f"{name:20}" + "".join(f"{counts[verdict]:9,}" for verdict in VERDICTS))
        print()
    total = Counter(one[3].verdict for one in found)
    print(f"{'all':20}" + "".join(f"{total[verdict]:9,}" for verdict in VERDICTS))
    slight = max((one[3].size for one in found if one[3].verdict == "slight"), default=0.0)
    print(f"\n{len(found):,} mutations in {wall:.0f} s; largest price difference without a word: {slight:.2%}")
    for name, kind, seed, outcome in found:
        if outcome.verdict == "WRONG":
            print(f"WRONG {name}, {kind}, seed {seed}: {outcome.text}")
    sys.exit(total["WRONG"] > 0)


if __name__ == "__main__":
    main()
