"""Bands from each OpenMX file's own H and S against its .Band: python benchmarks/bands_agreement.py FOLDER [--json].

FOLDER holds unpacked OpenMX output; the calculation goes through a store first, as `hamnet preprocess` writes it.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

from hamnet.bands.band_structure import compute_bands
from hamnet.bands.compare import compare
from hamnet.bands.kpath import path_from_points
from hamnet.data.store import Store, write_store
from hamnet_preprocess.openmx import OpenMXReader
from hamnet_preprocess.openmx_band import read_band


def main(root: Path, as_json: bool) -> None:
    rows = []
    for path in sorted(root.rglob("*.Band")):
        printed = read_band(path)
        read = OpenMXReader().read(path.parent, allow_unconverged=True)
        with tempfile.TemporaryDirectory() as folder:
            write_store(Path(folder) / "one.h5", [("one", read)])
            with Store(Path(folder) / "one.h5") as store:
                calculation = store.read("one")
        bands = compute_bands(calculation, path_from_points(printed.kpoints, calculation.structure, printed.labels))
        result = compare(bands, printed)
        name = path.parent.relative_to(root).as_posix()
        figures = {"spin": calculation.spin.value, "kpoints": len(printed.kpoints), "states": result.n_compared}
        rows.append({"case": name, **figures, "max_difference_eV": result.max_difference})
    if as_json:
        print(json.dumps({"date": time.strftime("%Y-%m-%d"), "cases": rows}))
        return
    for row in rows:
        print(
            f"| {row['case']} | {row['spin']} | {row['kpoints']} | {row['states']} | {row['max_difference_eV']:.1e} |"
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]), "--json" in sys.argv)
