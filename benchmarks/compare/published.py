"""Dice in the tables of the paper (Xu et al., Medical Physics 2021), as far as they are known here.

Table 1 is COVID-SemiSeg (48 test slices), 2 is COVID-19-20, 3 is UESTC-COVID-19. A name that begins with ``semi_`` is
the semi-supervised form; Semi-Inf-Net learns the pseudo masks first.
"""

TABLES: dict[int, dict[str, float]] = {
    1: {
        "cares_unet": 0.731,
        "semi_cares_unet": 0.776,
        "unet": 0.639,
        "linknet_xception": 0.689,
        "pspnet_vgg13": 0.685,
        "unet_resnet34": 0.652,
        "inf_net": 0.682,
        "semi_inf_net_pseudo_first": 0.739,
    },
    2: {"cares_unet": 0.770},
    3: {"cares_unet": 0.755},
}
OVER_THRESHOLDS = ("inf_net", "semi_inf_net_pseudo_first")  # means over thresholds; the others are of masks
SETS = {1: "COVID-SemiSeg", 2: "COVID-19-20", 3: "UESTC-COVID-19"}
# The paper's networks, in the order of its tables; beyond them follow the others of MODELS.
NETWORKS = (
    "fcn",
    "segnet",
    "unet",
    "linknet_xception",
    "fpn_efficientnet_b1",
    "pspnet_vgg13",
    "unet_resnet34",
    "inf_net",
)
