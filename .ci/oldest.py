"""Print the oldest versions that setup.py allows, one exact pin a line: a constraints file for pip.

Run by a Python that has mipin-keras installed, whose metadata are setup.py's words. So a lower bound is written once,
and raising it there changes what .ci/run tests.
"""

import sys
from importlib.metadata import requires

from packaging.requirements import Requirement


def pins(requirements: list[str]) -> list[str]:
    """Turn each requirement without an extra (``name>=1.2``) into its lower bound as a pin (``name==1.2``)."""
    lines = []
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and "extra" in str(requirement.marker):
            continue
        bounds = [specifier.version for specifier in requirement.specifier if specifier.operator == ">="]
        if len(bounds) != 1:
            sys.exit(f"setup.py: expected one lower bound, as in 'name>=1.2', to test on; received '{requirement}'")
        lines.append(f"{requirement.name}=={bounds[0]}")
    return lines


if __name__ == "__main__":
    print("\n".join(pins(requires("mipin-keras") or [])))
