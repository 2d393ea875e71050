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
   Counted is how often each rule says so. Ours was taken for this result, in place of the share of the wall that a
   lesion abuts; it has no number to be tuned. LST-AI's (whatever touches a ventricle is periventricular) stands beside.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial import cKDTree

from bidsseg.cli.demo import template
from bidsseg.imaging.arrays import box_around
from bidsseg.imaging.image import Image, load, save
from bidsseg.labels import TISSUE
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.records import Lesion, LesionReport
from bidsseg.lesions.tables import lesion_loads
from bidsseg.lesions.zones import COMPARTMENT, CORTEX, JUXTACORTICAL, PERIVENTRICULAR, VENTRICLES, ZONES, is_any
from bidsseg.network.card import DEFAULT_MODEL
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.report.lesion_mosaic import zone_mosaic
from bidsseg.segmentation.pipeline import segment
from bidsseg.segmentation.result import Segmentation, from_labels

RATIOS = (1, 1.5, 3, 10, np.inf)
"Of the larger part's volume to the smaller's."
COLUMNS = tuple(f"{low:g} to {high:g} times" for low, high in pairwise(RATIOS))
OURS = "nearer to (ours)"
MARGIN = 10
Walls = tuple[int, int]
"Voxels of ventricles and of cortex that face white matter."
DRAWN_A_MASK, DRAWN_EVERY = 2, 4
"Merged pairs that are drawn and measured anew: two of every fourth mask."


def segmented(image: Image, path: Path) -> Segmentation:
    """The image segmented with the packaged model; labels are kept beside ``path`` for the next time."""
    model = load_model(DEFAULT_MODEL)
    kept = [path.with_name(f"{path.name}_{model.card.sha256[:12]}_{name}.nii.gz") for name in ("regions", "lobes")]
    if not all(file.exists() for file in kept):
        found = segment(image, model, PredictOptions(device="cpu", threads=1))
        for file, scheme in zip(kept, ("regions", "lobes"), strict=True):
            save(file, found.labels(scheme), image.affine)  # type: ignore[arg-type]
    regions, lobes = (load(file).data.astype(np.uint16) for file in kept)
    return from_labels(regions, lobes, image.affine)


def check_totals(report: LesionReport, mask: Image) -> None:
    """End the script where a table does not add up to its mask."""
    volume = float((mask.data > 0).sum()) * mask.voxel_volume_mm3
    loads = lesion_loads(report)
    for level in {row.level for row in loads}:
        total = sum(row.volume_mm3 for row in loads if row.level == level)
        assert abs(total - volume) <= 1e-6 * volume, f"{level}: {total} instead of {volume} mm3"


def cut_out(image: Image, segmentation: Segmentation) -> tuple[Image, Segmentation]:
    """The box of the brain with a margin: a third of the voxels."""
    box = box_around(segmentation.labels("lobes") > 0, MARGIN)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    tissue, side, parcel = (np.ascontiguousarray(getattr(segmentation, n)[box]) for n in ("tissue", "side", "parcel"))
    part = Segmentation(tissue, side, parcel, np.zeros(tissue.shape, np.float16), affine, has_gyri=False)
    return Image(np.ascontiguousarray(image.data[box]), affine, image.header), part


def zone_table(patients: Sequence[Sequence[Lesion]]) -> None:
    """Print numbers and volumes by zone, of all and of the median patient."""
    lesions = [lesion for found in patients for lesion in found]
    volume = sum(lesion.volume_mm3 for lesion in lesions)
    print(f"{'zone':20}{'lesions':>8}{'share':>8}{'a patient':>11}{'mL':>8}{'share':>8}{'median share':>14}")
    for zone in ZONES:
        own = [lesion.volume_mm3 for lesion in lesions if lesion.zone == zone]
        shares = [
            sum(x.volume_mm3 for x in found if x.zone == zone) / max(sum(x.volume_mm3 for x in found), 1e-9)
            for found in patients
        ]
        print(
            f"{zone:20}{len(own):8}{len(own) / len(lesions):8.1%}{len(own) / len(patients):11.1f}"
            f"{sum(own) / 1000:8.1f}{sum(own) / volume:8.1%}{np.median(shares):14.1%}"
        )


def contact_table(patients: Sequence[Sequence[Lesion]]) -> None:
    """Print how many lesions of the cerebrum touch what, by the gap that counts as touching."""
    cerebral = [x for found in patients for x in found if x.zone not in ("infratentorial", "deep-grey", "outside")]
    print(f"{'gap':>8}{'at ventricles only':>20}{'both':>8}{'at cortex only':>16}{'neither':>9}")
    for gap in (0.0, 0.5, 1.0, 1.5, 2.5):
        touch = Counter((x.dist_ventricle_mm <= gap, x.dist_cortex_mm <= gap) for x in cerebral)
        shares = [touch[key] / len(cerebral) for key in ((True, False), (True, True), (False, True), (False, False))]
        print(f"{gap:5.1f} mm{shares[0]:20.1%}{shares[1]:8.1%}{shares[2]:16.1%}{shares[3]:9.1%}")


@dataclass(frozen=True)
class Part:
    """One lesion that touches one wall only."""

    zone: str
    volume_mm3: float
    walls_abutted: tuple[int, int]
    "Voxels that abut ventricles and cortex."
    nearer: tuple[int, int]
    "Voxels nearer to the ventricles, and nearer to the cortex."
    voxels: NDArray[np.intp]
    "(N, 3) on the isotropic grid."
    is_right: bool


def parts_of(report: LesionReport, gaps: Sequence[NDArray[np.float64]]) -> list[Part]:
    """The lesions of a report that touch only ventricles or only cortex, and nothing else."""
    tolerance, grid = report.options.tolerance_mm, report.placed.isotropic
    surface = (grid > 0) & ((ndimage.minimum_filter(grid, 3) != grid) | (ndimage.maximum_filter(grid, 3) != grid))
    cerebral = ~np.isin(COMPARTMENT[report.segmentation.tissue], (1, 2))
    parts = []
    for lesion, box in zip(report.lesions, ndimage.find_objects(grid), strict=False):
        if lesion.contacts not in ((PERIVENTRICULAR,), (JUXTACORTICAL,)):
            continue
        inside = grid[box] == lesion.lesion
        ventricle, cortex = (gap[box][inside] for gap in gaps)
        abut = surface[box][inside] & cerebral[box][inside]
        walls = tuple(int((abut & (gap <= tolerance)).sum()) for gap in (ventricle, cortex))
        nearer = (int((ventricle < cortex).sum()), int((ventricle > cortex).sum()))
        voxels = np.argwhere(inside) + [side.start for side in box]
        is_right = bool(lesion.centroid_mm[0] > 0)
        parts.append(Part(lesion.zone, lesion.volume_mm3, (walls[0], walls[1]), nearer, voxels, is_right))
    return parts


def rules(one: Part, other: Part, walls: Walls) -> dict[str, str]:
    """What each rule says of two lesions that have become one."""
    ventricle, cortex = (one.walls_abutted[side] + other.walls_abutted[side] for side in (0, 1))
    near, far = (one.nearer[side] + other.nearer[side] for side in (0, 1))

    def name(is_ventricle: bool) -> str:
        return PERIVENTRICULAR if is_ventricle else JUXTACORTICAL

    return {
        OURS: name(near >= far),
        "share of the wall": name(ventricle / walls[0] >= cortex / walls[1]),
        "area of contact": name(ventricle >= cortex),
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


def drawn(report: LesionReport, parts: Sequence[Part], walls: Walls, image: Image) -> Counter[str]:
    """Some pairs joined in the image and measured anew: how many get the zone that the sums tell."""
    white = report.segmentation.tissue == TISSUE["white-matter"]
    told: Counter[str] = Counter()
    joined = ((one, other, line) for one, other in pairs(parts) if (line := bridge(one, other, white)) is not None)
    for one, other, line in islice(joined, DRAWN_A_MASK):
        mask = np.zeros(image.data.shape, np.float32)
        for voxels in (one.voxels, line, other.voxels):
            mask[tuple(voxels.T)] = 1
        merged = lesion_features(image, Image(mask, image.affine, image.header), report.segmentation).lesions
        assert len(merged) == 1, f"{len(merged)} lesions after a bridge"
        assert {PERIVENTRICULAR, JUXTACORTICAL} <= set(merged[0].contacts)
        told["same" if merged[0].zone == rules(one, other, walls)[OURS] else "other"] += 1
    return told


def merged_table(patients: Sequence[Sequence[Part]], walls: Walls) -> None:
    """Print how often each rule names what the larger lesion was: by how much larger it was, and by what it was."""
    right: Counter[tuple[str, str]] = Counter()
    count: Counter[str] = Counter()
    for parts in patients:
        for one, other in pairs(parts):
            large, small = sorted((one.volume_mm3, other.volume_mm3), reverse=True)
            column, site = (COLUMNS[int(np.searchsorted(RATIOS, large / small, side="right")) - 1], truth(one, other))
            count.update((column, site))
            for rule, zone in rules(one, other, walls).items():
                right.update((rule, key) for key in (column, site) if zone == site)
    columns = (*COLUMNS, PERIVENTRICULAR, JUXTACORTICAL)
    print(f"{'larger part':28}" + "".join(f"{column:>17}" for column in columns) + f"{'mean of both':>15}")
    print(f"{'pairs':28}" + "".join(f"{count[column]:17}" for column in columns))
    for rule in dict.fromkeys(rule for rule, _ in right):
        shares = [right[rule, column] / max(count[column], 1) for column in columns]
        print(f"{rule:28}" + "".join(f"{share:17.1%}" for share in shares) + f"{sum(shares[-2:]) / 2:15.1%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of the lesion masks")
    parser.add_argument("-o", "--output", type=Path, default=Path("lesion-zones"), help="folder for the picture")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    paths = sorted(chosen.data.glob("*label-lesion_mask.nii.gz"))
    assert paths, f"{chosen.data}: no *label-lesion_mask.nii.gz"
    whole = template()
    image, segmentation = cut_out(whole, segmented(whole, chosen.output / "template"))
    gaps = gap_volumes(segmentation)
    walls = walls_of(segmentation)
    patients, merged, redrawn = [], [], Counter[str]()
    for number, path in enumerate(paths):
        mask = load(path)
        report = lesion_features(image, mask, segmentation)
        check_totals(report, mask)
        patients.append(report.lesions)
        merged.append(parts_of(report, gaps))
        if number % DRAWN_EVERY == 0:
            redrawn += drawn(report, merged[-1], walls, image)
    print(f"1. {len(paths)} masks on the MNI152 T1, model {load_model(DEFAULT_MODEL).card.sha256[:12]}:")
    print("every level of every table adds up to its mask's volume")
    zone_table(patients)
    contact_table(patients)
    own_scan(chosen.data, chosen.output)
    print("\n3. merged lesions: how often each rule says what the larger was")
    merged_table(merged, walls)
    print(f"drawn and measured anew: {redrawn['same']} of {redrawn.total()} pairs get the zone that the sums tell")


def own_scan(data: Path, output: Path) -> None:
    """Patients whose own FLAIR is there."""
    for flair in sorted(data.glob("*_FLAIR.nii.gz")):
        patient = flair.name.partition("_")[0]
        scan, mask = load(flair), load(next(data.glob(f"{patient}_*mask.nii.gz")))
        report = lesion_features(scan, mask, segmented(scan, output / patient))
        check_totals(report, mask)
        zone_mosaic(output / "zones.png", scan, report)
        print(f"\n2. {patient} on its own FLAIR; picture: {output / 'zones.png'}")
        zone_table([report.lesions])


def gap_volumes(segmentation: Segmentation) -> list[NDArray[np.float64]]:
    """Gap in mm between every voxel of a 1 mm image and the ventricles, and the cortex; (I, J, K) each."""
    centres = [ndimage.distance_transform_edt(~is_any(segmentation.tissue, kinds)) for kinds in (VENTRICLES, CORTEX)]
    return [np.maximum(distance - 1, 0) for distance in centres]


def walls_of(segmentation: Segmentation) -> Walls:
    """Voxels of ventricles and of cortex that face white matter."""
    beside = ndimage.binary_dilation(segmentation.tissue == TISSUE["white-matter"])
    ventricle, cortex = (int((beside & is_any(segmentation.tissue, kinds)).sum()) for kinds in (VENTRICLES, CORTEX))
    return ventricle, cortex


if __name__ == "__main__":
    main()
