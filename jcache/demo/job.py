"""A selection of top-quark pairs, written as an analyst would: plain uproot, awkward and numpy.

    python job.py [--more] URL...

It reads seven of some 900 columns (with ``--more`` a few others as well), keeps events with at least four jets, two of
them b-tagged, and one lepton, and fills two histograms: the scalar sum of jet momenta and the mass of the three jets
with the highest combined momentum. The result is one line of JSON, with checksums of every column that was read.
"""

import hashlib
import json
import sys
import time

import awkward as ak
import numpy as np
import uproot
from numpy.typing import NDArray

COLUMNS = ["Jet_pt", "Jet_eta", "Jet_phi", "Jet_btagCSVV2", "Jet_mass", "Muon_pt", "Electron_pt"]
MORE_COLUMNS = ["Jet_jetId", "Muon_eta", "Muon_tightId", "Electron_eta", "Electron_cutBased", "MET_pt", "HLT_IsoMu24"]
HT_BINS = np.linspace(0, 600, 25)
MASS_BINS = np.linspace(0, 600, 25)


def select(events: ak.Array) -> ak.Array:
    """Return the jets of the events that look like a top-quark pair with one lepton."""
    good = (events.Jet_pt > 30) & (abs(events.Jet_eta) < 2.4)
    tagged = good & (events.Jet_btagCSVV2 > 0.5)
    leptons = ak.sum(events.Muon_pt > 25, axis=1) + ak.sum(events.Electron_pt > 25, axis=1)
    keep = (ak.sum(good, axis=1) >= 4) & (ak.sum(tagged, axis=1) >= 2) & (leptons == 1)
    jets = ak.zip({name: events[f"Jet_{name}"] for name in ("pt", "eta", "phi", "mass", "btagCSVV2")})
    return jets[good][keep]


def trijet_mass(jets: ak.Array) -> NDArray[np.float64]:
    """Return, for each event, the mass of the b-tagged combination of three jets that has the highest momentum."""
    px, py, pz = jets.pt * np.cos(jets.phi), jets.pt * np.sin(jets.phi), jets.pt * np.sinh(jets.eta)
    energy = np.sqrt(px**2 + py**2 + pz**2 + jets.mass**2)
    vectors = ak.zip({"px": px, "py": py, "pz": pz, "e": energy, "btag": jets.btagCSVV2})
    one, two, three = ak.unzip(ak.combinations(vectors, 3))
    total = {name: one[name] + two[name] + three[name] for name in ("px", "py", "pz", "e")}
    has_b = (one.btag > 0.5) | (two.btag > 0.5) | (three.btag > 0.5)
    pt = np.where(has_b, np.hypot(total["px"], total["py"]), -1)
    squared = total["e"] ** 2 - total["px"] ** 2 - total["py"] ** 2 - total["pz"] ** 2
    best = ak.argmax(pt, axis=1, keepdims=True)
    mass: NDArray[np.float64] = np.sqrt(np.maximum(ak.to_numpy(ak.flatten(squared[best])), 0))
    return mass


def checksum(column: ak.Array) -> str:
    """Return a checksum of all values of a column, and of their numbers per event."""
    digest = hashlib.sha256(ak.to_numpy(ak.flatten(column, axis=None)).tobytes())
    if column.ndim > 1:
        digest.update(ak.to_numpy(ak.num(column)).tobytes())
    return digest.hexdigest()[:16]


def main() -> None:
    """Run the selection over the files that the command line names."""
    more = "--more" in sys.argv[1:]
    urls = [argument for argument in sys.argv[1:] if argument != "--more"]
    columns = COLUMNS + MORE_COLUMNS if more else COLUMNS
    count = selected = 0
    ht_histogram = np.zeros(len(HT_BINS) - 1, dtype=int)
    mass_histogram = np.zeros(len(MASS_BINS) - 1, dtype=int)
    checksums: dict[str, list[str]] = {name: [] for name in columns}

    begin = time.perf_counter()
    for url in urls:
        with uproot.open(url) as file:
            events = file["Events"].arrays(columns)
        jets = select(events)
        count += len(events)
        selected += len(jets)
        ht_histogram += np.histogram(ak.to_numpy(ak.sum(jets.pt, axis=1)), HT_BINS)[0]
        mass_histogram += np.histogram(trijet_mass(jets), MASS_BINS)[0]
        for name in columns:
            checksums[name].append(checksum(events[name]))
    seconds = time.perf_counter() - begin

    result = {"events": count, "selected": selected, "ht": ht_histogram.tolist(), "mass": mass_histogram.tolist()}
    print(json.dumps({"seconds": seconds, "result": result, "columns": checksums}))


if __name__ == "__main__":
    main()
