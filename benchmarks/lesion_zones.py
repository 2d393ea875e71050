"""Where real lesions lie, and what their zones depend on.

    python benchmarks/lesion_zones.py DATA -o OUT
    python benchmarks/lesion_zones.py DATA -o OUT --study

DATA holds ``ms-lesions-mni`` (masks of patients in MNI152 space, Lesjak et al. 2017, doi 10.1007/s12021-017-9348-7) and
``ms-clinical-lesions`` (2D FLAIRs in slices of 6-8 mm with manual masks). Segmentations are made once and kept in OUT.

Neuroradiologists saw the most lesions in subcortical white matter and the most volume at the ventricles, in the mean of
330 patients (Pongratz et al. 2023, doi 10.1016/j.nicl.2022.103311). Printed are

1. zones of all masks on the MNI152 T1 that nilearn ships, segmented with the packaged model. Every level of every table
   must add up to its mask's volume, or the script ends;
2. pairs of lesions, one that touches only the ventricles and one that touches only the cortex of the same hemisphere,
   joined by a bridge of 1 mm through white matter: how often both sites are found, and how often the whole gets the
   zone that the larger had;
3. the same as in 1 on the clinical FLAIRs, with a picture of each in OUT.

``--study`` chooses the numbers of the rules on every other patient and tests them on the others. The numbers of the
split are those that find both sites of most merged pairs. Of the settings with these that put most parts into deep
white matter and most volume at the ventricles, as read, that one is chosen whose zones change least where the masks on
the template, and its labels, are shown in slices of 7 mm; then the gap for single voxels that agrees best with the
zones of their parts.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from bidsseg.cli.demo import template
from bidsseg.imaging.arrays import box_around
from bidsseg.imaging.image import Image, load, save
from bidsseg.labels import TISSUE, TISSUES
from bidsseg.lesions.describe import lesion_features
from bidsseg.lesions.loads import lesion_loads
from bidsseg.lesions.measures import at_pieces
from bidsseg.lesions.options import LesionOptions
from bidsseg.lesions.records import Lesion, LesionReport, Part
from bidsseg.lesions.zones import DEEP_WHITE, JUXTACORTICAL, PERIVENTRICULAR, ZONES, Cubes, zone_by_voxel, zone_of
from bidsseg.network.card import DEFAULT_MODEL
from bidsseg.network.inference import PredictOptions
from bidsseg.network.weights import load_model
from bidsseg.report.lesion_mosaic import zone_mosaic
from bidsseg.segmentation.anatomy import Anatomy, from_labels
from bidsseg.segmentation.pipeline import segment

MARGIN = 10
SLICE_MM = 7
"The slices in which lesions and brain are shown once more."
DRAWN_A_MASK = 4
"Pairs of lesions merged in each mask."
LEAST_MERGED_MM3, LONGEST_BRIDGE_MM = 50, 20
"A thread of 1 mm is no neck in a lesion of hardly 2 mm, and long threads look like no lesion."
TRIED = tuple(
    LesionOptions(
        tolerance_mm=ventricle,
        cortex_tolerance_mm=cortex,
        ventricle_share=ventricle_share,
        cortex_share=cortex_share,
        neck_share=neck,
        part_depth_mm=depth,
    )
    for depth in (1.0, 1.5)
    for neck in (0.5, 0.6, 0.7)
    for ventricle in (1.0, 1.5, 2.0)
    for cortex in (0.5, 1.0, 1.5)
    for ventricle_share in (0.1, 0.2)
    for cortex_share in (0.2, 0.3)
)
"What the study chooses from. A gap of more than 2 mm is no contact, whatever the numbers say."
SHOWN = 5
TRIED_NEAR_MM = (2.0, 3.0, 4.0, 5.0, 7.0)


def segmented(image: Image, path: Path) -> Anatomy:
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


def cut_out(image: Image, anatomy: Anatomy) -> tuple[Image, Anatomy]:
    """The box of the brain with a margin: a third of the voxels."""
    box = box_around(anatomy.labels("lobes") > 0, MARGIN)
    affine = image.affine.copy()
    affine[:3, 3] += affine[:3, :3] @ [side.start for side in box]
    tissue, side, parcel = (np.ascontiguousarray(getattr(anatomy, n)[box]) for n in ("tissue", "side", "parcel"))
    part = Anatomy(tissue, side, parcel, affine, has_gyri=False)
    return Image(np.ascontiguousarray(image.data[box]), affine, image.header), part


def zone_table(patients: Sequence[Sequence[Lesion]] | Sequence[Sequence[Part]]) -> None:
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


def in_thick_slices(image: Image, anatomy: Anatomy) -> tuple[Image, Anatomy]:
    """Scan and labels of 1 mm in slices of ``SLICE_MM``: the mean grey value and the commonest tissue of each stack."""
    affine = image.affine @ np.diag((1, 1, SLICE_MM, 1))
    affine[:3, 3] += image.affine[:3, 2] * (SLICE_MM - 1) / 2
    stacks = _stacks(anatomy.tissue)
    tissue = np.stack([(stacks == kind).sum(-1) for kind in range(len(TISSUES))], -1).argmax(-1).astype(np.uint8)
    first = (stacks == tissue[..., None]).argmax(-1)[..., None]
    side, parcel = (np.take_along_axis(_stacks(values), first, -1)[..., 0] for values in (anatomy.side, anatomy.parcel))
    thick = Anatomy(tissue, side, parcel, affine, has_gyri=False)
    return Image(_stacks(image.data).mean(-1).astype(np.float32), affine, image.header), thick


def mask_in_thick_slices(mask: NDArray[np.bool_], scan: Image) -> Image:
    """A mask of 1 mm where it fills at least half of a voxel of the thick scan."""
    return Image((_stacks(mask).mean(-1) >= 0.5).astype(np.float32), scan.affine, scan.header)


def _stacks(volume: NDArray[Any]) -> NDArray[Any]:
    """(I, J, K) as (I, J, slices, voxels of 1 mm in each)."""
    i, j, k = volume.shape
    return volume[..., : k // SLICE_MM * SLICE_MM].reshape(i, j, k // SLICE_MM, SLICE_MM)


def places(parts: Sequence[Cubes], options: LesionOptions) -> NDArray[np.intp]:
    """Places in ``ZONES`` of parts, (N,)."""
    return np.array([ZONES.index(zone_of(cubes, options)[1]) for cubes in parts], np.intp)


@dataclass(frozen=True, eq=False)
class Seen:
    """What the study keeps of a patient, split at one width of neck."""

    cubes: tuple[Cubes, ...]
    volumes_mm3: NDArray[np.float64]
    part: NDArray[np.integer[Any]]
    "Part of each piece, (M,); 0 for none."
    pieces: tuple[NDArray[Any], NDArray[Any], NDArray[Any]]
    "Tissue of each piece, and its gaps to ventricles and cortex; (M,) each."
    thick: tuple[Cubes, ...] = ()
    "Parts in thick slices; none without a scan of 1 mm."
    both: tuple[NDArray[np.intp], NDArray[np.intp]] = (np.zeros(0, np.intp), np.zeros(0, np.intp))
    "Parts of the voxels that are lesion in both, at 1 mm and in thick slices."

    def agreement(self, options: LesionOptions) -> float:
        """Share of the voxels whose zone is the same at 1 mm and in thick slices; nan where nothing can be compared."""
        fine, thick = (places(cubes, options) for cubes in (self.cubes, self.thick))
        same = fine[self.both[0] - 1] == thick[self.both[1] - 1]
        return float(same.mean()) if len(same) else float("nan")

    def agreement_of_voxels(self, options: LesionOptions) -> float:
        """Share of the pieces whose own zone is that of their part."""
        own = zone_by_voxel(*self.pieces, options.near_mm)
        of_part = np.array([-1, *places(self.cubes, options)])[self.part]
        return float((own == of_part)[self.part > 0].mean())


def seen(report: LesionReport, thick: LesionReport | None = None) -> Seen:
    pieces = (at_pieces(report.anatomy.tissue, report.pieces), report.ventricle_mm, report.cortex_mm)
    volumes = np.array([part.volume_mm3 for part in report.parts])
    if thick is None:
        return Seen(report.cubes, volumes, report.pieces.part, pieces)
    fine = report.part_labels[..., : thick.part_labels.shape[2] * SLICE_MM]
    coarse = np.repeat(thick.part_labels, SLICE_MM, axis=2)
    lesion = (fine > 0) & (coarse > 0)
    both = (fine[lesion].astype(np.intp), coarse[lesion].astype(np.intp))
    return Seen(report.cubes, volumes, report.pieces.part, pieces, thick.cubes, both)


@dataclass(frozen=True)
class Score:
    """Means over patients."""

    counts: NDArray[np.float64]
    "Parts by zone, in the order of ``ZONES``."
    shares: NDArray[np.float64]
    "Of the volume, by zone."
    agreement: float
    "Of 1 mm and thick slices."

    @property
    def is_as_read(self) -> bool:
        """Whether the subcortical zone has most parts and the periventricular one most volume."""
        return ZONES[self.counts.argmax()] == DEEP_WHITE and ZONES[self.shares.argmax()] == PERIVENTRICULAR


def score(patients: Sequence[Seen], options: LesionOptions) -> Score:
    counts, shares = [], []
    for patient in patients:
        zones = places(patient.cubes, options)
        counts.append(np.bincount(zones, minlength=len(ZONES)))
        volume = np.bincount(zones, patient.volumes_mm3, minlength=len(ZONES))
        shares.append(volume / max(volume.sum(), 1e-9))
    agreement = float(np.nanmean([patient.agreement(options) for patient in patients if len(patient.thick)]))
    return Score(np.mean(counts, axis=0), np.mean(shares, axis=0), agreement)


def study(data: Path, output: Path) -> None:
    """Choose on every other patient, test on the others; print both."""
    choosing = {split: cohort(data, output, *split, start=0) for split in dict.fromkeys(map(split_of, TRIED))}
    for (neck, depth), half in choosing.items():
        print(f"neck {neck}, depth {depth} mm: {told_of_pairs(half.pairs)}")
    most = max(half.pairs["both"] for half in choosing.values())
    scores = [
        (score(choosing[split_of(tried)].patients, tried), tried)
        for tried in TRIED
        if choosing[split_of(tried)].pairs["both"] == most
    ]
    fit = sorted((pair for pair in scores if pair[0].is_as_read), key=lambda pair: -pair[0].agreement)
    print(f"{len(fit)} of {len(scores)} settings are as read by neuroradiologists in the half that chooses")
    for found, tried in fit[:SHOWN]:
        print(f"{found.agreement:.1%} of the volume in the same zone in {SLICE_MM} mm slices: {tried}")
    chosen = fit[0][1]
    patients = choosing[split_of(chosen)].patients
    near = max(TRIED_NEAR_MM, key=lambda mm: voxel_agreement(patients, replace(chosen, near_mm=mm)))
    chosen = replace(chosen, near_mm=near)
    print(f"chosen: {chosen}; the defaults are {'the same' if chosen == LesionOptions() else 'others'}")
    halves = {"half that chose": choosing[split_of(chosen)]}
    halves["half that tests"] = cohort(data, output, *split_of(chosen), start=1)
    for name, half in halves.items():
        print(f"\n{name}, {len(half.patients)} patients; {told_of_pairs(half.pairs)}")
        score_table(half.patients, chosen)


def split_of(options: LesionOptions) -> tuple[float, float]:
    return options.neck_share, options.part_depth_mm


def told_of_pairs(pairs: Counter[str]) -> str:
    count = max(pairs["pairs"], 1)
    both, whole = pairs["both"] / count, pairs["whole"] / count
    return f"of {pairs['pairs']} merged pairs, both sites found in {both:.1%}, the whole as the larger in {whole:.1%}"


def voxel_agreement(patients: Sequence[Seen], options: LesionOptions) -> float:
    return float(np.mean([patient.agreement_of_voxels(options) for patient in patients]))


def score_table(patients: Sequence[Seen], options: LesionOptions) -> None:
    found = score(patients, options)
    voxels = np.mean([voxel_shares(patient, options) for patient in patients], axis=0)
    print(f"{'zone':20}{'parts':>8}{'volume':>9}{'by voxel':>10}")
    for place, zone in enumerate(ZONES):
        print(f"{zone:20}{found.counts[place]:8.1f}{found.shares[place]:9.1%}{voxels[place]:10.1%}")
    print(f"same zone at 1 mm and in {SLICE_MM} mm slices: {found.agreement:.1%} of the volume")
    print(f"voxel and part have the same zone: {voxel_agreement(patients, options):.1%} of the volume")
    print(f"as read: {'yes' if found.is_as_read else 'NO'}")


def voxel_shares(patient: Seen, options: LesionOptions) -> NDArray[np.float64]:
    counts = np.bincount(zone_by_voxel(*patient.pieces, options.near_mm), minlength=len(ZONES))
    shares: NDArray[np.float64] = counts / counts.sum()
    return shares


@dataclass(frozen=True)
class Cohort:
    """Half of the patients."""

    patients: list[Seen]
    pairs: Counter[str]
    "What was found of their lesions when merged."


def cohort(data: Path, output: Path, neck: float, depth_mm: float, start: int) -> Cohort:
    """Every other patient with a mask on the template, and every other with a clinical FLAIR, by their names."""
    options = LesionOptions(neck_share=neck, part_depth_mm=depth_mm)
    whole = template()
    image, anatomy = cut_out(whole, segmented(whole, output / "template"))
    thick_image, thick_anatomy = in_thick_slices(image, anatomy)
    patients, pairs = [], Counter[str]()
    for path in masks_on_template(data)[start::2]:
        report = lesion_features(image, load(path), anatomy, options)
        thick_mask = mask_in_thick_slices(report.components.isotropic > 0, thick_image)
        thick = lesion_features(thick_image, thick_mask, thick_anatomy, options)
        patients.append(seen(report, thick))
        pairs += merged(report, image)
    others = clinical_reports(data, output, options, slice(start, None, 2))
    return Cohort(patients + [seen(report) for _, _, report in others], pairs)


def masks_on_template(data: Path) -> list[Path]:
    paths = sorted((data / "ms-lesions-mni").glob("*label-lesion_mask.nii.gz"))
    assert paths, f"{data}: no ms-lesions-mni/*label-lesion_mask.nii.gz"
    return paths


def clinical_reports(
    data: Path, output: Path, options: LesionOptions | None = None, which: slice = slice(None)
) -> Iterator[tuple[str, Image, LesionReport]]:
    """Name, scan and lesions of patients with a clinical FLAIR."""
    for flair in sorted((data / "ms-clinical-lesions").glob("sub-*/anat/*_FLAIR.nii.gz"))[which]:
        name = flair.name.partition("_")[0]
        scan = load(flair)
        mask = load(data / f"ms-clinical-lesions/derivatives/manual/{name}/anat/{name}_label-lesion_mask.nii.gz")
        report = lesion_features(scan, mask, segmented(scan, output / name), options)
        check_totals(report, mask)
        yield name, scan, report


Pair = tuple[NDArray[np.intp], NDArray[np.intp]]


def single_sites(report: LesionReport, site: str) -> list[tuple[NDArray[np.intp], bool]]:
    """Isotropic voxels (N, 3) of lesions in one piece that touch this site alone, and whether they are on the right."""
    return [
        (np.argwhere(report.components.isotropic == lesion.lesion), lesion.centroid_mm[0] > 0)
        for lesion in report.lesions
        if lesion.parts == 1 and lesion.contacts == (site,) and lesion.volume_mm3 >= LEAST_MERGED_MM3
    ]


def bridged(report: LesionReport) -> Iterator[tuple[Pair, NDArray[np.intp]]]:
    """Lesions at the ventricles and at the cortex of one hemisphere, with a bridge of 1 mm through white matter."""
    white = report.anatomy.tissue == TISSUE["white-matter"]
    for one, is_right in single_sites(report, PERIVENTRICULAR):
        for other, other_is_right in single_sites(report, JUXTACORTICAL):
            line = bridge(one, other, white)
            if is_right == other_is_right and line is not None:
                yield (one, other), line


def bridge(one: NDArray[np.intp], other: NDArray[np.intp], white: NDArray[np.bool_]) -> NDArray[np.intp] | None:
    """Voxels of a straight line between the nearest ends, one voxel thick; None where it leaves white matter."""
    distance, index = cKDTree(one).query(other)
    end, start = other[distance.argmin()], one[index[distance.argmin()]]
    steps = int(np.abs(end - start).max())
    line = np.rint(np.linspace(start, end, steps + 1)).astype(np.intp)[1:-1]
    return line if 0 < len(line) <= LONGEST_BRIDGE_MM and white[tuple(line.T)].all() else None


def merged(report: LesionReport, image: Image) -> Counter[str]:
    """Some pairs joined by a bridge and measured anew: are both sites found, and is the whole what the larger was."""
    told: Counter[str] = Counter()
    for (one, other), line in islice(bridged(report), DRAWN_A_MASK):
        mask = np.zeros(image.data.shape, np.float32)
        mask[tuple(np.concatenate((one, line, other)).T)] = 1
        merged_mask = Image(mask, image.affine, image.header)
        found = lesion_features(image, merged_mask, report.anatomy, report.options)
        assert len(found.lesions) == 1, f"{len(found.lesions)} lesions after a bridge"
        zones = np.array(["", *(part.zone for part in found.parts)])[found.part_labels]
        right = [(zones[tuple(v.T)] == site).mean() > 0.5 for v, site in zip((one, other), SITES, strict=True)]
        larger = SITES[int(len(other) > len(one))]
        told.update({"pairs": 1, "both": int(all(right)), "whole": int(found.lesions[0].zone == larger)})
    return told


SITES = (PERIVENTRICULAR, JUXTACORTICAL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="folder of ms-lesions-mni and ms-clinical-lesions")
    parser.add_argument("-o", "--output", type=Path, default=Path("lesion-zones"), help="labels and pictures")
    parser.add_argument("--study", action="store_true", help="choose the rules' numbers on half of the patients")
    chosen = parser.parse_args()
    chosen.output.mkdir(parents=True, exist_ok=True)
    if chosen.study:
        study(chosen.data, chosen.output)
        return
    on_template(chosen.data, chosen.output)
    clinical(chosen.data, chosen.output)


def on_template(data: Path, output: Path) -> None:
    whole = template()
    image, anatomy = cut_out(whole, segmented(whole, output / "template"))
    reports, told = [], Counter[str]()
    for path in masks_on_template(data):
        mask = load(path)
        report = lesion_features(image, mask, anatomy)
        check_totals(report, mask)
        reports.append(replace(report, components=None, cubes=(), labels=None, part_labels=None))  # type: ignore[arg-type]
        told += merged(report, image)
    print(f"1. {len(reports)} masks on the MNI152 T1, model {load_model(DEFAULT_MODEL).card.sha256[:12]}")
    zone_tables(reports)
    contact_table([report.lesions for report in reports])
    print("\n2. lesions merged on purpose")
    print(told_of_pairs(told))


def clinical(data: Path, output: Path) -> None:
    """Patients on their own FLAIRs, and a picture of each."""
    reports = []
    for name, scan, report in clinical_reports(data, output):
        zone_mosaic(output / f"{name}_zones.png", scan, report)
        reports.append(report)
    if reports:
        print(f"\n3. {len(reports)} patients on their own FLAIRs; pictures: {output}/*_zones.png")
        zone_tables(reports)


def zone_tables(reports: Sequence[LesionReport]) -> None:
    print("lesions")
    zone_table([report.lesions for report in reports])
    print("parts")
    zone_table([report.parts for report in reports])


if __name__ == "__main__":
    main()
