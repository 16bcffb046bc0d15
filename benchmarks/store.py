"""Milliseconds per water-like calculation, written and read: python benchmarks/store.py [COUNT]."""

import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "data"))

from store_cases import water

from hamnet.data.store import Store, StoreWriter


def main(count: int) -> None:
    rng = np.random.default_rng(0)
    pool = [water(rng) for _ in range(200)]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "water.h5"
        start = time.perf_counter()
        with StoreWriter(path) as writer:
            for k in range(count):
                writer.add(f"w{k}", pool[k % len(pool)])
        middle = time.perf_counter()
        with Store(path) as store:
            for k in range(count):
                store.read(k)
        end = time.perf_counter()
        row = {
            "date": time.strftime("%Y-%m-%d"),
            "calculations": count,
            "write_ms": (middle - start) / count * 1e3,
            "read_ms": (end - middle) / count * 1e3,
            "kilobytes_each": path.stat().st_size / count / 1e3,
        }
    print(json.dumps(row))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
