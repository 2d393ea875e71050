"""Where real lesions lie, and how the rule for confluent lesions does on lesions merged on purpose.

    python benchmarks/lesion_zones.py DATA -o OUT

DATA holds ``*label-lesion_mask.nii.gz`` of patients in MNI152 space, and of one patient the FLAIR on the same grid
(Lesjak et al. 2017, doi 10.1007/s12021-017-9348-7). Three things are printed, in this order:

1. Zones of all masks on the MNI152 T1 that nilearn ships, segmented with the packaged model. Every level of every
   table must add up to its mask's volume, or the script ends. Neuroradiologists saw the most volume at the ventricles
   and the most lesions in subcortical white matter (330 patients, Pongratz et al. 2023,
   doi 10.1016/j.nicl.2022.103311).
2. The patient with a FLAIR: the same on that FLAIR, and OUT/zones.png, its lesions coloured by zone.
3. Merged lesions. Pairs of lesions, one that touches only the ventricles and one that touches only the cortex of the
   same hemisphere, are joined by a bridge through white matter, so that what they are is known: what the larger was.
   Counted is how often each rule says so. Our rule was chosen before this test was thought of, but after its result in
   part 1 was seen; the rule of LST-AI (whatever touches a ventricle is periventricular) and others stand beside it.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bidsseg.demo import template
from bidsseg.image import Image, load, save
from bidsseg.labels import TISSUE
from bidsseg.lesion_measures import cubes_of
from bidsseg.lesion_pictures import zone_mosaic
from bidsseg.lesion_report import LesionReport
from bidsseg.lesion_tables import lesion_loads
from bidsseg.lesion_zones import JUXTACORTICAL, PERIVENTRICULAR, ZONES
from bidsseg.lesions import lesion_features
from bidsseg.predict import PredictOptions, segment
from bidsseg.segmentation import Segmentation, from_labels, labels
from bidsseg.weights import DEFAULT_MODEL, load_model

RATIOS = (1, 1.5, 3, 10, np.inf)
"Of the larger part's volume to the smaller's."
DRAWN_A_MASK = 2
"Merged pairs of each mask that are drawn and measured anew."


def segmented(image: Image, path: Path) -> Segmentation:
    """The image segmented with the packaged model; labels are kept beside ``path`` for the next time."""
    model = load_model(DEFAULT_MODEL)
    kept = [path.with_name(f"{path.name}_{model.card.sha256[:12]}_{name}.nii.gz") for name in ("regions", "lobes")]
    if not all(file.exists() for file in kept):
        found = segment(image, model, PredictOptions(device="cpu", threads=1))
        for file, scheme in zip(kept, ("regions", "lobes"), strict=True):
            save(file, labels(found, scheme), image.affine)  # type: ignore[arg-type]
    regions, lobes = (load(file).data.astype(np.uint16) for file in kept)
    return from_labels(regions, lobes, image.affine)


def check_totals(report: LesionReport, mask: Image) -> None:
    """End the script where a table does not add up to its mask."""
    volume = float((mask.data > 0).sum()) * mask.voxel_volume_mm3
    loads = lesion_loads(report)
    for level in {row.level for row in loads}:
        total = sum(row.volume_mm3 for row in loads if row.level == level)
        assert abs(total - volume) <= 1e-6 * volume, f"{level}: {total} instead of {volume} mm3"


def zone_table(reports: Sequence[LesionReport]) -> None:
    """Print numbers and volumes by zone, of all and of the median patient."""
    lesions = [lesion for report in reports for lesion in report.lesions]
    volume = sum(lesion.volume_mm3 for lesion in lesions)
    print(f"{'zone':20}{'lesions':>8}{'share':>8}{'a patient':>11}{'mL':>8}{'share':>8}{'median share':>14}")
    for zone in ZONES:
        own = [lesion.volume_mm3 for lesion in lesions if lesion.zone == zone]
        shares = [
            sum(x.volume_mm3 for x in r.lesions if x.zone == zone) / max(sum(x.volume_mm3 for x in r.lesions), 1e-9)
            for r in reports
        ]
        print(
            f"{zone:20}{len(own):8}{len(own) / len(lesions):8.1%}{len(own) / len(reports):11.1f}"
            f"{sum(own) / 1000:8.1f}{sum(own) / volume:8.1%}{np.median(shares):14.1%}"
        )


@dataclass(frozen=True)
class Part:
    """One lesion that touches one wall only."""

    zone: str
    volume_mm3: float
    walls_abutted: tuple[int, int]
    "Voxels that abut ventricles and cortex."
    nearer: tuple[float, float]
    "Voxels nearer to the ventricles, and nearer to the cortex."
    voxels: NDArray[np.intp]
    "(N, 3) on the isotropic grid."
    is_right: bool


def parts_of(report: LesionReport, image: Image, gaps: tuple[NDArray[np.float64], NDArray[np.float64]]) -> list[Part]:
    """The lesions of a report that touch only ventricles or only cortex, and nothing else."""
    tolerance = report.options.tolerance_mm
    cubes = cubes_of(report.placed, image, report.segmentation, len(report.lesions))
    parts = []
    for lesion, cube in zip(report.lesions, cubes, strict=True):
        if lesion.contacts not in ((PERIVENTRICULAR,), (JUXTACORTICAL,)):
            continue
        abuts = [int((cube.cerebral & (gap <= tolerance)).sum()) for gap in (cube.ventricle_mm, cube.cortex_mm)]
        voxels = np.argwhere(report.placed.isotropic == lesion.lesion)
        ventricle, cortex = (gap[tuple(voxels.T)] for gap in gaps)
        nearer = (float((ventricle < cortex).sum()), float((ventricle >= cortex).sum()))
        is_right = bool(lesion.centroid_mm[0] > 0)
        volume = lesion.volume_mm3
        parts.append(Part(lesion.zone, volume, (abuts[0], abuts[1]), nearer, voxels, is_right))
    return parts


def rules(one: Part, other: Part, walls: tuple[int, int]) -> dict[str, str]:
    """What each rule says of two lesions that have become one."""
    ventricle, cortex = (one.walls_abutted[side] + other.walls_abutted[side] for side in (0, 1))
    near, far = (one.nearer[side] + other.nearer[side] for side in (0, 1))

    def name(is_ventricle: bool) -> str:
        return PERIVENTRICULAR if is_ventricle else JUXTACORTICAL

    return {
        "share of the wall (ours)": name(ventricle / walls[0] >= cortex / walls[1]),
        "area of contact": name(ventricle >= cortex),
        "nearer to": name(near >= far),
        "ventricles first (LST-AI)": name(ventricle > 0),
    }


def pairs(parts: Sequence[Part]) -> Iterator[tuple[Part, Part]]:
    for one in parts:
        for other in parts:
            if (one.zone, other.zone) == (PERIVENTRICULAR, JUXTACORTICAL) and one.is_right == other.is_right:
                yield one, other


def truth(one: Part, other: Part) -> str:
    return max((one, other), key=lambda part: part.volume_mm3).zone


def bridge(one: Part, other: Part, white: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """Voxels of a straight line between the nearest ends, one voxel thick; None where it leaves white matter."""
    distance, index = cKDTree(one.voxels).query(other.voxels)
    end, start = other.voxels[distance.argmin()], one.voxels[index[distance.argmin()]]
    steps = int(np.abs(end - start).max())
    line = np.rint(np.linspace(start, end, steps + 1)).astype(np.intp)[1:-1]
    return line if len(line) and white[tuple(line.T)].all() else None


def drawn(reports: Sequence[LesionReport], all_parts: Sequence[list[Part]], image: Image) -> tuple[int, int]:
    """Of pairs joined in the image and measured anew: how many get the zone that the sums tell, of how many."""
    white = reports[0].segmentation.tissue == TISSUE["white-matter"]
    same = count = 0
    for report, parts in zip(reports, all_parts, strict=True):
        walls = cubes_of(report.placed, image, report.segmentation, 1)[0].walls
        tried = 0
        for one, other in pairs(parts):
            line = bridge(one, other, white)
            if line is None or tried == DRAWN_A_MASK:
                continue
            mask = np.zeros(image.data.shape, np.float32)
            for voxels in (one.voxels, line, other.voxels):
                mask[tuple(voxels.T)] = 1
            merged = lesion_features(image, Image(mask, image.affine, image.header), report.segmentation).lesions
            assert len(merged) == 1, f"{len(merged)} lesions after a bridge"
            assert {PERIVENTRICULAR, JUXTACORTICAL} <= set(merged[0].contacts)
            same += merged[0].zone == rules(one, other, walls)["share of the wall (ours)"]
            count += 1
            tried += 1
    return same, count


def merged_table(all_parts: Sequence[list[Part]], walls: tuple[int, int]) -> None:
    """Print how often each rule names what the larger lesion was, by how much larger it was."""
    right: dict[str, Counter[int]] = {}
    counts: Counter[int] = Counter()
    both: dict[str, Counter[str]] = {}
    totals: Counter[str] = Counter()
    for parts in all_parts:
        for one, other in pairs(parts):
            large, small = sorted((one.volume_mm3, other.volume_mm3), reverse=True)
            column = int(np.searchsorted(RATIOS, large / small, side="right"))
            counts[column] += 1
            totals[truth(one, other)] += 1
            for rule, zone in rules(one, other, walls).items():
                right.setdefault(rule, Counter())[column] += zone == truth(one, other)
                both.setdefault(rule, Counter())[truth(one, other)] += zone == truth(one, other)
    heads = [f"{low:g}-{high:g} x" for low, high in pairwise(RATIOS)]
    print(
        f"{'larger part is':28}"
        + "".join(f"{head:>10}" for head in heads)
        + f"{'ventricle':>12}{'cortex':>10}{'mean':>8}"
    )
    sites = (PERIVENTRICULAR, JUXTACORTICAL)
    print(
        f"{'pairs':28}"
        + "".join(f"{counts[c]:10}" for c in range(1, 5))
        + f"{totals[sites[0]]:12}{totals[sites[1]]:10}"
    )
    for rule, hits in right.items():
        shares = [both[rule][site] / max(totals[site], 1) for site in sites]
        cells = "".join(f"{hits[c] / max(counts[c], 1):10.1%}" for c in range(1, 5))
        print(f"{rule:28}{cells}{shares[0]:12.1%}{shares[1]:10.1%}{sum(shares) / 2:8.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the lesion masks")
    parser.add_argument("-o", "--output", type=Path, default=Path("lesion-zones"), help="folder for the picture")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    paths = sorted(chosen.data.glob("*label-lesion_mask.nii.gz"))
    assert paths, f"{chosen.data}: no *label-lesion_mask.nii.gz"
    image = template()
    segmentation = segmented(image, chosen.output / "template")
    reports = []
    for path in paths:
        mask = load(path)
        reports.append(lesion_features(image, mask, segmentation))
        check_totals(reports[-1], mask)
    print(f"1. {len(paths)} masks on the MNI152 T1, model {load_model(DEFAULT_MODEL).card.sha256[:12]}:")
    print("every level of every table adds up to its mask's volume")
    zone_table(reports)
    for flair in sorted(chosen.data.glob("*_FLAIR.nii.gz")):
        patient = flair.name.partition("_")[0]
        scan, mask = load(flair), load(next(chosen.data.glob(f"{patient}_*mask.nii.gz")))
        report = lesion_features(scan, mask, segmented(scan, chosen.output / patient))
        check_totals(report, mask)
        zone_mosaic(chosen.output / "zones.png", scan, report)
        print(f"\n2. {patient} on its own FLAIR; picture: {chosen.output / 'zones.png'}")
        zone_table([report])
    print("\n3. merged lesions")
    gaps = gap_volumes(image, segmentation)
    all_parts = [parts_of(report, image, gaps) for report in reports]
    walls = cubes_of(reports[0].placed, image, reports[0].segmentation, 1)[0].walls
    merged_table(all_parts, walls)
    same, count = drawn(reports, all_parts, image)
    print(f"drawn with a bridge and measured anew: {same} of {count} pairs get the zone that the sums tell")


def gap_volumes(image: Image, segmentation: Segmentation) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Distance in mm of every voxel of a 1 mm image to ventricles and to cortex, (I, J, K) each."""
    from scipy import ndimage

    from bidsseg.lesion_zones import CORTEX, VENTRICLES, is_any

    ventricle, cortex = (
        ndimage.distance_transform_edt(~is_any(segmentation.tissue, kinds)) for kinds in (VENTRICLES, CORTEX)
    )
    return ventricle, cortex


if __name__ == "__main__":
    main()
