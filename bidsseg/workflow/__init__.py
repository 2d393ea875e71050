"""Many scans: which to run, in what order, in which processes; and ``SegmentRegions`` for workflows of your own."""

from typing import TYPE_CHECKING, Any

__all__ = ["SegmentRegions"]

if TYPE_CHECKING:
    from bidsseg.workflow.nipype_interface import SegmentRegions


def __getattr__(name: str) -> Any:
    """Import nipype and torch only when the interface is asked for."""
    if name in __all__:
        from bidsseg.workflow.nipype_interface import SegmentRegions

        return SegmentRegions
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
