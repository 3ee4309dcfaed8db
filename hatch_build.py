"""Puts the bill of materials into the wheel where `make dist` has made one (PEP 770)."""

from pathlib import Path
from typing import Any, Final

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

BILL: Final = "auditplane.cdx.json"


class BillOfMaterials(BuildHookInterface):  # type: ignore[type-arg]
    """Adds it to `.dist-info/sboms`."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Is called before a wheel is built."""
        del version
        if Path(self.root, BILL).exists():
            build_data["sbom_files"].append(BILL)
