"""Which scans are complete and which are to do, of those also that are segmented together. No nipype."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bidsseg.bids.completeness import as_made, is_complete
from bidsseg.bids.contrasts import session_groups
from bidsseg.bids.outputs import OutputSettings, ScanOutputs
from bidsseg.files import read_json
from bidsseg.quality.verdicts import verdict_of


@dataclass(frozen=True)
class Sorted:
    """The scans of a run."""

    complete: tuple[ScanOutputs, ...] = ()
    standing: tuple[ScanOutputs, ...] = ()
    "Complete unless another session of theirs, which is to do, gets a say."
    to_do: tuple[ScanOutputs, ...] = ()

    def foreseen(self) -> Sorted:
        """Without scans that stand: to do again are those beside a session that has not failed before."""
        groups = session_groups([*self.to_do, *self.standing])
        new = [group for group in groups if any(scan in self.to_do and not scan.log.exists() for scan in group)]
        again = {scan for group in new for scan in group}
        return Sorted(
            (*self.complete, *(scan for scan in self.standing if scan not in again)),
            to_do=(*self.to_do, *(scan for scan in self.standing if scan in again)),
        )


def sort_out(all_outputs: Sequence[ScanOutputs], recipe: OutputSettings, overwrite: bool) -> Sorted:
    """Sort scans by what there is of them, all made with this recipe.

    Sessions that are segmented together are complete where those that have a say were answered with each other, and
    all the rest by itself.
    """
    if overwrite:
        return Sorted(to_do=tuple(all_outputs))
    complete = {scan for scan in all_outputs if not scan.others and is_complete(scan, recipe)}
    standing: set[ScanOutputs] = set()
    for group in session_groups(all_outputs):
        done = [scan for scan in group if is_complete(as_made(scan), recipe)]
        heard = [scan for scan in done if not _has_no_say(scan)]
        complete |= set(done) - set(heard)
        if _answered_with_each_other(heard):
            (complete if len(done) == len(group) else standing).update(heard)
    return Sorted(
        tuple(scan for scan in all_outputs if scan in complete),
        tuple(scan for scan in all_outputs if scan in standing),
        tuple(scan for scan in all_outputs if scan not in complete | standing),
    )


def _has_no_say(outputs: ScanOutputs) -> bool:
    """Whether a complete session failed by itself, so that it had no part in the answers of others."""
    return not as_made(outputs).others and verdict_of(read_json(outputs.quality)) == "fail"


def _answered_with_each_other(sessions: Iterable[ScanOutputs]) -> bool:
    made = [as_made(scan) for scan in sessions]
    paths = {scan.scan.path for scan in made}
    return all(set(scan.others) == paths - {scan.scan.path} for scan in made)
