"""MB/s of .scfout and peak memory of reading OpenMX output: python benchmarks/preprocess.py FOLDER [JOBS]."""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path

from hamnet_preprocess.collect import collect

KIBIBYTE = 1024  # the unit of ru_maxrss on Linux


def main(root: Path, jobs: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        result = collect("openmx", [root], Path(folder) / "data.h5", jobs)
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    child = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    row = {
        "date": time.strftime("%Y-%m-%d"),
        "jobs": jobs,
        "read": result.read,
        "failed": result.failed,
        "megabytes": result.n_bytes / 1e6,
        "megabytes_per_second": result.megabytes_per_second,
        "peak_memory_GB": own * KIBIBYTE / 1e9,
        "peak_memory_of_a_reading_process_GB": child * KIBIBYTE / 1e9,
    }
    print(json.dumps(row))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 1)
