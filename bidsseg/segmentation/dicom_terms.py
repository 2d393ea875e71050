"""What labels are called in DICOM: a coded kind, the lobe it lies in, and a side.

``tables/dicom_terms.tsv`` has the terms: those of DICOM's CID 7140, Brain Structure for Volumetric Measurement, and
SNOMED CT for lobes. What has no term there is not forced into one: the cingulate as a lobe is left out, and groups of
ventricles or deep nuclei are named by the private term of their label.
"""

from __future__ import annotations

import csv
from functools import cache
from importlib.resources import files

from bidsseg.imaging.dicom_seg import Segment, Term
from bidsseg.labels import Label, Scheme, label_table, structures_of

PRIVATE_SCHEME = "99BIDSSEG"
CATEGORIES = {
    "structure": Term("91723000", "SCT", "Anatomical Structure"),
    "tissue": Term("85756007", "SCT", "Tissue"),
    "substance": Term("91720002", "SCT", "Body Substance"),
}
LONGEST_MEANING = 64
"Letters, by DICOM."


@cache
def segments_of(scheme: Scheme) -> dict[int, Segment]:
    """How each label of a scheme is described, by its number."""
    structures = structures_of(scheme)
    return {label.index: _segment(label, structures[label.index]) for label in label_table(scheme)}


def _segment(label: Label, structure: str) -> Segment:
    known = _terms()
    private = Term(str(label.index), PRIVATE_SCHEME, label.name[:LONGEST_MEANING]), CATEGORIES["structure"]
    kind, category = known.get(structure, private)
    region = known[label.mapping][0] if label.mapping in known else None
    return Segment(label.index, label.name, label.color, category, kind, region, label.hemisphere)


@cache
def _terms() -> dict[str, tuple[Term, Term]]:
    """The kind and the category of each structure and lobe."""
    text = (files("bidsseg") / "tables" / "dicom_terms.tsv").read_text(encoding="utf-8")
    rows = csv.DictReader(text.splitlines(), delimiter="\t")
    return {
        row["structure"]: (Term(row["value"], row["scheme"], row["meaning"]), CATEGORIES[row["category"]])
        for row in rows
    }
