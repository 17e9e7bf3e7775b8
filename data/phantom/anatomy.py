"""Draws one axial slice of a synthetic chest in Hounsfield units, as seen from the feet, the spine below.

A `Patient` is the same in all slices; `draw_chest` draws it at one `level`, 0 at the
apices of the lungs and 1 at their bases. Shapes live in chest coordinates: the rib cage spans about -1..1
both ways, x grows towards the patient's left and y towards the back, so nothing depends on the image size.
"""

from dataclasses import dataclass

import numpy as np

from data.phantom.canvas import AIR, Canvas, closed_curve, ellipse, gaussian_blur, mirrored, normals, smooth_noise
from data.phantom.outlines import LEFT_LUNG, RIGHT_LUNG, TORSO, at_level

FAT, MUSCLE, BLOOD, LIVER = -100, 50, 40, 60  # HU


@dataclass(frozen=True)
class Patient:
    half_width: float  # of the rib cage, as a share of half the image
    half_height: float
    tilt: float  # radians, lying slightly rotated
    shift: np.ndarray  # (2,) of the image's half size
    fat: float  # thickness of the layer below the skin, chest units
    breasts: float
    heart: float  # scale of the heart
    aorta: float  # radius, chest units
    diaphragm: float  # level of the liver's dome
    table: float  # gap below the back; negative for no table in view
    jitter: np.ndarray  # (2, 12, 2) what sets these two lungs apart from the key outlines
    wobble: np.ndarray  # (2, 36, 2) the same, finer
    lung_hu: float  # parenchyma at the middle of the chest
    gravity: float  # HU from the middle to the back
    dependent: float  # HU of the compressed lung on the posterior pleura


@dataclass(frozen=True)
class Chest:
    """One slice as layers (S, S), so that lesions can be put below the vessels."""

    hu: np.ndarray  # everything but vessels and airways
    lungs: np.ndarray  # bool
    vessels: np.ndarray  # opacity 0..1, fissures included
    walls: np.ndarray  # opacity of the bronchial walls
    airways: np.ndarray  # opacity of the air inside them
    x: np.ndarray  # chest coordinates of the pixels
    y: np.ndarray


def sample_patient(rng: np.random.Generator, spread: float) -> Patient:
    """`spread` scales the range of lung density only; anatomy always varies fully."""
    half_width = rng.uniform(0.68, 0.78)
    return Patient(
        half_width=half_width,
        half_height=half_width * rng.uniform(0.68, 0.80),
        tilt=rng.normal(0, 0.04),
        shift=rng.normal(0, 0.02, 2) - (0, 0.04),
        fat=rng.uniform(0.03, 0.13),
        breasts=max(0.0, rng.uniform(-0.2, 0.2)),
        heart=rng.uniform(0.88, 1.1),
        aorta=rng.uniform(0.085, 0.115),
        diaphragm=rng.uniform(0.72, 0.95),
        table=rng.uniform(-0.05, 0.07),
        jitter=rng.normal(0, 0.02, (2, 12, 2)),
        wobble=rng.normal(0, 0.006, (2, 36, 2)),
        lung_hu=-825 + 55 * spread * rng.uniform(-1, 1),
        gravity=rng.uniform(20, 60),
        dependent=max(0.0, rng.uniform(-100, 220)),
    )


Tree = tuple[np.ndarray, np.ndarray, np.ndarray]  # starts (N, 3), ends (N, 3) and radii (N,) of segments


def lung_outlines(patient: Patient, level: float) -> np.ndarray:
    """Right and left: (2, 144, 2)."""
    keys = at_level(RIGHT_LUNG, level) * (-1, 1), at_level(LEFT_LUNG, level)
    vary = min(1, 0.3 + 3 * level)  # the apices are small, and so are their irregularities
    coarse = [closed_curve(points, 3) for points in keys + vary * patient.jitter]
    return np.stack([closed_curve(points, 4) for points in coarse + vary * patient.wobble])


def draw_body(canvas: Canvas, patient: Patient, lungs: np.ndarray, level: float) -> None:
    """For some patients the table; skin, fat, muscles, and the rib cage within a plane of fat."""
    muscle = mirrored(at_level(TORSO, level))
    outward = muscle / np.hypot(*muscle.T)[:, None]
    chest = np.clip(-muscle[:, 1:], 0, None) * np.clip(1 - 4 * (np.abs(muscle[:, :1]) - 0.6) ** 2, 0, 1)
    breasts = patient.breasts * chest * np.exp(-(((level - 0.65) / 0.25) ** 2))
    skin = muscle + outward * (patient.fat * (1 + 0.5 * np.abs(muscle[:, :1])) + breasts)
    if patient.table > 0:
        back = skin[:, 1].max() + patient.table
        for depth, hu in ((0.25, -350), (0.23, -900), (0.03, -300), (0, AIR)):
            canvas.paint(ellipse(0, back + depth - 2.2, 2.6, 2.2), hu)
        canvas.hu[canvas.y < back - 0.25] = AIR
    canvas.paint(closed_curve(skin * 1.012), 0)
    canvas.paint(closed_curve(skin), FAT)
    canvas.paint(closed_curve(muscle), MUSCLE)
    for side in (-1, 1):  # between the muscles of the wall
        canvas.paint(ellipse(side * 0.98, -0.48, 0.03, 0.36, side * -0.5), FAT)
        canvas.paint(ellipse(side * 0.66, 1.04, 0.24, 0.025, side * -0.4), FAT)
    for side, lung in zip((-1, 1), lungs, strict=True):
        varied = 1 + 0.15 * np.sin(np.linspace(0, 14 * np.pi, len(lung)))[:, None]
        for hu, reach in ((FAT + 20, 0.16), (MUSCLE - 45, 0.13), (FAT + 40, 0.03)):
            canvas.paint(lung + reach * varied * normals(lung, side), hu)
    front = lungs[..., 1].min()
    canvas.paint(np.array([(-0.3, front), (0.3, front), (0.3, 0.75), (-0.3, 0.75)]), MUSCLE - 15)


def draw_bones(canvas: Canvas, lungs: np.ndarray, level: float, rng: np.random.Generator) -> None:
    for side, lung in zip((-1, 1), lungs, strict=True):
        # Ribs run obliquely through the slice: long flat ovals along the costal pleura.
        normal = normals(lung, side)
        t = np.linspace(0, 2 * np.pi, 40, endpoint=False)
        for centre in np.arange(14, 90, 13.5) + rng.uniform(0, 8):
            along = centre + rng.uniform(3.5, 6) * np.cos(t)
            index = along.astype(int)
            off = 0.065 + 0.026 * np.sin(t) + rng.uniform(0.003, 0.02) * np.cos(t)
            canvas.bone(lung[index] + normal[index] * off[:, None], 0.6)
        if level < 0.55:
            canvas.bone(ellipse(side * 1.0, 0.72, 0.045, 0.34, side * 0.62), 0.5)  # scapula
            canvas.bone(ellipse(side * 1.04, 0.48, 0.06, 0.10, side * 0.3), 0.6)
        if level < 0.16:
            canvas.bone(ellipse(side * 0.30, -0.58, 0.17, 0.06, side * 0.35))  # clavicle
        canvas.bone(ellipse(side * 0.17, 0.80, 0.15, 0.055, side * 0.45))  # transverse process
        canvas.bone(ellipse(side * 0.075, 0.86, 0.035, 0.13, side * 0.75))  # lamina
    if level > 0.1:
        canvas.bone(ellipse(0, lungs[..., 1].min() - 0.06, 0.16 - 0.06 * level, 0.055), 0.75)  # sternum
    canvas.bone(ellipse(0, 1.0, 0.035, 0.15), 0.5)  # spinous process
    half = np.array([(0.0, 0.39), (0.11, 0.44), (0.15, 0.56), (0.12, 0.67), (0.0, 0.65)])
    canvas.bone(closed_curve(mirrored(half)), 0.86)  # vertebral body
    canvas.paint(ellipse(0, 0.75, 0.065, 0.085), 30)  # spinal canal


def draw_mediastinum(canvas: Canvas, patient: Patient, front: float, level: float) -> None:
    """Heart, great vessels and airways of the middle; `front` is the front of the lungs, behind the sternum."""
    r = patient.aorta

    def vessel(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> None:
        canvas.paint(ellipse(x, y, rx, 1.35 * ry, turn), BLOOD)

    if level > 0.2:
        fat = np.array([(0.0, 0.0), (0.07, 0.08), (0.13, 0.22), (0.03, 0.27), (-0.09, 0.33), (-0.08, 0.12)])
        canvas.paint(closed_curve(fat + np.array([0, front])), FAT + 20)
    if level < 0.2:  # branches of the arch
        for x, y in ((-0.16, -0.12), (-0.05, -0.22), (0.1, -0.14), (0.17, 0.02), (-0.2, -0.26)):
            vessel(x, y, 0.45 * r, 0.45 * r)
    elif level < 0.33:
        vessel(0.06, -0.06, 0.24, 0.11, 0.75)  # arch of the aorta
        vessel(-0.17, -0.2, 0.06, 0.06)
    elif level < 0.62:
        vessel(-0.08, -0.34, 1.15 * r, 1.15 * r)  # ascending aorta
        vessel(0.14, -0.38, 1.1 * r, 1.1 * r)  # pulmonary trunk
        vessel(-0.23, -0.22, 0.06, 0.06)  # superior vena cava
        vessel(0.05, -0.05, 0.34, 0.07, -0.12)  # pulmonary arteries
    else:
        k = patient.heart * min(1, 0.75 + (level - 0.62))
        canvas.paint(ellipse(0.14, -0.3, 0.56 * k, 0.45 * k, 0.42), MUSCLE)
        vessel(0.3, -0.2, 0.26 * k, 0.19 * k, 0.5)  # left ventricle
        vessel(-0.06, -0.42, 0.25 * k, 0.16 * k, 0.4)
        vessel(-0.1, -0.1, 0.18 * k, 0.14 * k)
    if level > 0.28:
        vessel(0.2, 0.44, r, r)  # descending aorta
    canvas.paint(ellipse(0.04, 0.27, 0.05, 0.06), MUSCLE)  # oesophagus
    draw_airways(canvas, level)


def draw_airways(canvas: Canvas, level: float) -> None:
    """Trachea or main bronchi, those outside the lungs."""
    if level < 0.42:
        canvas.paint(ellipse(0, 0.1, 0.068, 0.085), AIR + 15)  # trachea
    elif level < 0.62:
        apart = 0.09 + 1.1 * (level - 0.42)
        for side in (-1, 1):
            canvas.paint(ellipse(side * apart, 0.12, 0.085, 0.055, side * 0.35), AIR + 15)  # main bronchi


def grow_tree(rng: np.random.Generator, side: int, level: float, stems: int, radius: float) -> Tree:
    """Branching trees grown in space; the slice is the plane z = 0."""
    # Stems leave the trunk that runs up from the hilum and, further back, down: here those near the slice.
    trunk = np.array([side * 0.37, 0.08 + 0.5 * max(0, level - 0.5), 0])
    tips = trunk + rng.uniform(-1, 1, (stems, 3)) * (0.06, 0.08, 0.45)
    radius *= 1 - 0.8 * abs(level - 0.5)
    heading = rng.normal(size=(stems, 3)) * (1, 1, 0.5) + (side * 0.6, 0, 0)
    starts, ends, radii = [], [], []
    for generation in range(9):
        length = 0.19 * 0.86**generation * rng.uniform(0.6, 1.3, (len(tips), 1)) / 3
        for step in range(3):  # a branch bends and tapers
            heading = heading + 0.16 * rng.normal(size=heading.shape)
            heading /= np.linalg.norm(heading, axis=1, keepdims=True)
            starts.append(tips)
            tips = tips + length * heading
            ends.append(tips)
            radii.append(np.full(len(tips), radius * 0.77 ** (generation + step / 3)))
        outward = tips - trunk
        tips, heading = np.repeat(tips, 2, 0), np.repeat(heading + 0.8 * outward, 2, 0)
        heading = heading + 0.55 * rng.normal(size=heading.shape)
    return np.concatenate(starts), np.concatenate(ends), np.concatenate(radii)


def draw_tree(canvas: Canvas, tree: Tree, widen: float = 0.0) -> np.ndarray:
    """Opacity (S, S) of the branches in a thin slab: lines if they lie in it, dots if they cross it."""
    starts, ends, radii = tree
    half = 0.015 + radii
    way = ends - starts
    rise = np.where(np.abs(way[:, 2]) < 1e-6, 1e-6, way[:, 2])
    cuts = np.clip((np.stack([-half, half]) - starts[:, 2]) / rise, 0, 1)
    enter, leave = cuts.min(0), cuts.max(0)
    seen = leave > enter
    low, high = (starts + t[:, None] * way for t in (enter, leave))
    opacity = np.clip(radii[seen] / 0.009, 0.35, 1)  # the slab is thicker than the fine vessels
    return canvas.strokes(low[seen, :2], high[seen, :2], radii[seen] + widen, opacity)


def draw_fissure(canvas: Canvas, side: int, level: float, rng: np.random.Generator) -> np.ndarray:
    """The oblique fissure, a fine line that comes forward from apex to base."""
    t = np.linspace(0.15, 1, 30)
    y = 0.75 - 1.1 * level + rng.normal(0, 0.08) + 0.3 * (t - 0.5) ** 2 - rng.uniform(0, 0.25) * t
    points = np.stack([side * t, y + 0.01 * np.cumsum(rng.normal(size=30))], 1)
    faint = np.full(29, rng.uniform(0.15, 0.4))
    return canvas.strokes(points[:-1], points[1:], np.full(29, 0.006), faint)


def draw_lungs(
    canvas: Canvas, patient: Patient, lungs: np.ndarray, depth: np.ndarray, rng: np.random.Generator
) -> None:
    """Parenchyma: mottled, denser towards the back, in some patients compressed on the posterior pleura."""
    mottle = 14 * smooth_noise(rng, canvas.size, 48)
    hu = patient.lung_hu + patient.gravity * np.clip(canvas.y, -1, 1) + mottle
    hu += patient.dependent * np.clip(1 - 1.2 * depth, 0, 1) * np.clip(2.2 * canvas.y - 0.9, 0, 1)
    canvas.hu[lungs] = hu[lungs]


def draw_liver(canvas: Canvas, lungs: np.ndarray, rise: float) -> np.ndarray:
    """Its dome reaches into the right lung, with a hazy rim of partial volume; returns the remaining lung."""
    dome = canvas.inside(ellipse(-0.44, -0.14, 0.52 * rise, 0.66 * rise, 0.1))
    share = gaussian_blur(dome, canvas.unit * 0.012 / (0.3 + rise))  # flattest, hence haziest, at its top
    canvas.hu += np.where(lungs, share, 0) * (LIVER - canvas.hu)
    return lungs & (share < 0.3)


def draw_chest(patient: Patient, level: float, size: int, rng: np.random.Generator) -> Chest:
    canvas = Canvas(size, patient.half_width, patient.half_height, patient.tilt, patient.shift)
    outlines = lung_outlines(patient, level)
    lungs = canvas.inside(outlines[0]) | canvas.inside(outlines[1])
    depth = 2 * gaussian_blur(lungs, 0.03 * canvas.unit) - 1  # 0 on the pleura, 1 well inside

    draw_body(canvas, patient, outlines, level)
    draw_bones(canvas, outlines, level, rng)
    draw_mediastinum(canvas, patient, outlines[..., 1].min(), level)
    marbling = smooth_noise(rng, size, 32) + smooth_noise(rng, size, 90)
    canvas.hu += 9 * marbling * (canvas.hu > -200)
    draw_lungs(canvas, patient, lungs, depth, rng)
    if level > patient.diaphragm:
        lungs = draw_liver(canvas, lungs, np.sqrt((level - patient.diaphragm) / 0.28))

    vessels, walls, airways = np.zeros((3, size, size), np.float32)
    fissures = rng.random() < 0.6
    for side in (-1, 1):
        vessels = np.maximum(vessels, draw_tree(canvas, grow_tree(rng, side, level, stems=18, radius=0.025)))
        bronchi = grow_tree(rng, side, level, stems=4, radius=0.017)
        airways = np.maximum(airways, draw_tree(canvas, bronchi))
        walls = np.maximum(walls, 0.6 * draw_tree(canvas, bronchi, widen=0.009))
        if fissures:
            vessels = np.maximum(vessels, draw_fissure(canvas, side, level, rng))
    inside = np.clip(2.5 * depth, 0, 1) * lungs  # all of them taper off before the pleura
    return Chest(canvas.hu, lungs, vessels * inside, walls * inside, airways * inside, canvas.x, canvas.y)
