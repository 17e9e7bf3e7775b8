"""Whether the values of a volume can be Hounsfield units of a chest."""

import numpy as np

LOWEST_TISSUE, HIGHEST_TISSUE = -200, 250  # HU of fat, muscle, blood, organs
DENSE = -500  # HU; what is denser is mostly tissue
LEAST_TISSUE = 0.5  # of the dense voxels
LEAST_AIR = 0.02  # of all voxels


def why_no_ct(hu: np.ndarray) -> str:
    """Why a volume in what should be HU is no CT of a chest; empty if it can be one.

    In Hounsfield units, tissue lies between fat and blood, and lungs are full of air; in MR and PET, neither holds.
    """
    if (share := np.mean(hu < DENSE)) < LEAST_AIR:
        return f"{share:.1%} of the voxels are air"
    dense = hu[hu > DENSE]
    share = np.mean((dense > LOWEST_TISSUE) & (dense < HIGHEST_TISSUE)) if dense.size else np.float64(0)
    return f"only {share:.0%} of the denser voxels have the values of soft tissue" if share < LEAST_TISSUE else ""
