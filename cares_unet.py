"""The parts of this repository that other programs use: ``import cares_unet`` works in any folder.

After ``pip install -e .``. The packages are named ``models``, ``data`` and ``utils``, as the scripts in this folder
import them. Other projects use these names, too: in one process, the first one imported hides the others. So this
module puts this folder first, fails if it comes too late, and warns of modules that it hides.
"""

import sys
import warnings
from importlib import import_module
from importlib.machinery import PathFinder
from pathlib import Path

ROOT = Path(__file__).parent.resolve()
if not (ROOT / "models").is_dir():
    raise ImportError("cares_unet: its packages are not installed with it; in its folder, run pip install -e .")
elsewhere = [path for path in sys.path if Path(path).resolve() != ROOT]
sys.path.insert(0, str(ROOT))

for name in ("models", "data", "utils"):
    file = import_module(name).__file__
    if file is None or Path(file).resolve().parent != ROOT / name:
        raise ImportError(f"cares_unet: another package {name} is already imported; import cares_unet before it")
    if (hidden := PathFinder.find_spec(name, elsewhere)) and hidden.origin:
        warnings.warn(f"cares_unet: hides {hidden.origin}, which has the name of a package here", stacklevel=2)

from data.errors import InputError
from data.preprocess.preprocessing import Preprocessing
from data.preprocess.window import Window
from models import MODELS, build_model
from utils.config import RECIPES, PredictionConfig, TrainingConfig
from utils.inference.predictor import Prediction, Predictor
from utils.training.data import read_labeled, read_pseudo_labeled
from utils.training.loop import fit
from utils.training.methods import SEMI_SUPERVISED, MeanTeacher, PseudoLabels, Supervised
from utils.training.start import Start

__all__ = [
    "MODELS",
    "RECIPES",
    "SEMI_SUPERVISED",
    "InputError",
    "MeanTeacher",
    "Prediction",
    "PredictionConfig",
    "Predictor",
    "Preprocessing",
    "PseudoLabels",
    "Start",
    "Supervised",
    "TrainingConfig",
    "Window",
    "build_model",
    "fit",
    "read_labeled",
    "read_pseudo_labeled",
]
