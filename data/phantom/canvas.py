"""Drawing tools of the phantom: smooth noise, closed curves, and a canvas in Hounsfield units."""

import numpy as np
from PIL import Image, ImageDraw

AIR, MARROW, CORTEX = -1000, 180, 550  # HU


def gaussian_blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """`sigma` in pixels. By FFT, hence periodic; the slice is ringed by air."""
    rows, cols = np.fft.fftfreq(field.shape[0])[:, None], np.fft.rfftfreq(field.shape[1])
    kernel = np.exp(-2 * (np.pi * sigma) ** 2 * (rows**2 + cols**2)).astype(np.float32)
    return np.fft.irfft2(np.fft.rfft2(field.astype(np.float32)) * kernel, field.shape)


def smooth_noise(rng: np.random.Generator, size: int, cells: int) -> np.ndarray:
    """(size, size) of about zero mean and unit deviation, from a grid that is the same at every size."""
    grid = Image.fromarray(1.4 * rng.standard_normal((cells, cells), np.float32))
    return np.asarray(grid.resize((size, size), Image.Resampling.BICUBIC))


def closed_curve(points: np.ndarray, steps: int = 12) -> np.ndarray:
    """Catmull-Rom spline through (N, 2) points: (N * steps, 2)."""
    before, after, beyond = (np.roll(points, n, 0) for n in (1, -1, -2))
    t = np.linspace(0, 1, steps, endpoint=False)[:, None, None]
    cubic = 2 * points + t * (after - before) + t**2 * (2 * before - 5 * points + 4 * after - beyond)
    cubic = cubic + t**3 * (3 * points - before - 3 * after + beyond)
    return cubic.swapaxes(0, 1).reshape(-1, 2) / 2


def ellipse(x: float, y: float, rx: float, ry: float, turn: float = 0.0) -> np.ndarray:
    a = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    u, v = rx * np.cos(a), ry * np.sin(a)
    return np.stack([x + u * np.cos(turn) - v * np.sin(turn), y + u * np.sin(turn) + v * np.cos(turn)], 1)


def mirrored(half: np.ndarray) -> np.ndarray:
    """Half an outline that starts and ends on the midline, completed."""
    return np.concatenate([half, half[-2:0:-1] * (-1, 1)])


def normals(outline: np.ndarray, side: int) -> np.ndarray:
    """Unit vectors (N, 2) that point out of a lung's outline."""
    along = np.roll(outline, -1, 0) - np.roll(outline, 1, 0)
    return along[:, ::-1] * (side, -side) / np.hypot(*along.T)[:, None]


class Canvas:
    """A slice in HU that shapes in chest coordinates are painted on, later ones over earlier ones."""

    def __init__(self, size: int, half_width: float, half_height: float, tilt: float, shift: np.ndarray) -> None:
        """`half_width` and `half_height` of the rib cage and its `shift` are shares of half the image."""
        self.size = size
        self.unit = half_width * size / 2  # pixels of one chest unit across
        c, s = np.cos(tilt), np.sin(tilt)
        self.matrix = np.array([[c, -s], [s, c]]) * (half_width, half_height) * size / 2
        self.origin = (1 + shift) * size / 2
        self.hu = np.full((size, size), AIR, np.float32)
        pixels = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5 - self.origin
        self.x, self.y = np.moveaxis(pixels @ np.linalg.inv(self.matrix).T, -1, 0).astype(np.float32)

    def to_pixels(self, points: np.ndarray) -> np.ndarray:
        return points @ self.matrix.T + self.origin

    def inside(self, outline: np.ndarray) -> np.ndarray:
        """(S, S) bool of the closed outline (N, 2)."""
        image = Image.new("1", (self.size, self.size))
        ImageDraw.Draw(image).polygon(self.to_pixels(outline).ravel().tolist(), fill=1)
        return np.array(image)

    def paint(self, outline: np.ndarray, hu: float) -> None:
        self.hu[self.inside(outline)] = hu

    def bone(self, outline: np.ndarray, rim: float = 0.62) -> None:
        """Bright cortex around marrow, which is the outline shrunk to `rim`."""
        self.paint(outline, CORTEX)
        centre = outline.mean(0)
        self.paint(centre + rim * (outline - centre), MARROW)

    def strokes(self, starts: np.ndarray, ends: np.ndarray, radii: np.ndarray, opacity: np.ndarray) -> np.ndarray:
        """Opacity (S, S) of N line segments; those thinner than a pixel fade instead."""
        image = Image.new("L", (self.size, self.size))
        draw = ImageDraw.Draw(image)
        width = 2 * radii * self.unit
        opacity = 255 * opacity * np.minimum(1, width)
        starts, ends = self.to_pixels(starts), self.to_pixels(ends)
        for i in np.argsort(opacity):
            fill = int(opacity[i])
            draw.line([*starts[i], *ends[i]], fill, max(1, round(width[i])))
            if width[i] > 2.5:  # round joints
                (x, y), r = ends[i], width[i] / 2
                draw.ellipse([x - r, y - r, x + r, y + r], fill)
        return np.asarray(image, np.float32) / 255
