"""All figures of large cells in one table: python benchmarks/large.py [--data FOLDER] [--work FOLDER] [--json].

FOLDER of --data: unpacked OpenMX output (`openmx/graphene/prim_dzp`, ...) and `pao/` with .pao files. --only NAME ...
chooses rows, --list names them. Each row runs in a process of its own and is kept in WORK/NAME.json when it is done: a
second start takes it from there (--again: runs it anew).
Rows come from `rows()` of the modules in SOURCES: a list of (name, callable without arguments). The callable returns a
dict with atoms, orbitals, seconds, peak_memory_GB, max_residual_eV, goal_met (None: not applicable) and all else that
it measured; it finds the data in `data_folder()` and may keep files in `work_folder()`.
"""

import argparse
import importlib
import json
import os
import platform
import resource
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
SOURCES = ("overlap", "tiles", "large_bands")
KEYS = ("atoms", "orbitals", "seconds", "peak_memory_GB", "max_residual_eV", "goal_met")


def data_folder():
    """Folder of --data."""
    return Path(os.environ.get("HAMNET_LARGE_DATA", "/tmp/hamdata"))


def work_folder():
    """Folder of --work, made when it is not there."""
    folder = Path(os.environ.get("HAMNET_LARGE_WORK", "large_work"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def all_rows():
    """Name -> callable, of all sources that offer rows."""
    modules = [importlib.import_module(name) for name in SOURCES]
    return {name: call for module in modules if hasattr(module, "rows") for name, call in module.rows()}


def machine():
    """Processor, cores, memory and the load that others make."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    model = next((line.split(":")[1].strip() for line in text.splitlines() if "model name" in line), platform.machine())
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def run(name):
    """One row, in this process."""
    load, start = os.getloadavg()[0], time.perf_counter()
    found = all_rows()[name]()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    head = {"work": name} | dict.fromkeys(KEYS)
    head |= {"seconds": round(time.perf_counter() - start, 1), "peak_memory_GB": round(peak, 2)}
    cpu = {"cpu_seconds": round(sum(u.ru_utime + u.ru_stime for u in usages), 1)}
    return (
        head | cpu | found | {"machine": machine(), "load_at_start": round(load, 1), "date": time.strftime("%Y-%m-%d")}
    )


def row_in_a_process(name, again):
    """The row as it is kept, or run now and kept; what fails is told and not kept."""
    kept = work_folder() / f"{name}.json"
    if kept.exists() and not again:
        return json.loads(kept.read_text())
    done = subprocess.run([sys.executable, __file__, "--row", name], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        return {"work": name, "error": f"ended with {done.returncode}; see above"}
    row = json.loads(done.stdout.splitlines()[-1])
    temporary = kept.with_suffix(".tmp")
    temporary.write_text(json.dumps(row))
    temporary.replace(kept)
    return row


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", default=str(data_folder()))
    parser.add_argument("--work", default=os.environ.get("HAMNET_LARGE_WORK", "large_work"))
    parser.add_argument("--only", nargs="*", help="names of rows")
    parser.add_argument("--again", action="store_true", help="run rows that are kept, too")
    parser.add_argument("--list", action="store_true", help="names of rows")
    parser.add_argument("--row", help=argparse.SUPPRESS)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.row:
        print(json.dumps(run(options.row)), flush=True)
        return
    os.environ["HAMNET_LARGE_DATA"], os.environ["HAMNET_LARGE_WORK"] = options.data, options.work
    names = list(all_rows()) if options.only is None else options.only
    if options.list:
        print("\n".join(names))
        return
    rows = []
    for name in names:
        rows.append(row_in_a_process(name, options.again))
        if not options.json:
            print(json.dumps(rows[-1]), flush=True)
    if options.json:
        print(json.dumps(rows))


if __name__ == "__main__":
    main()
