"""The parts of this repository that other programs use: ``import cares_unet`` works in any folder.

After ``pip install -e .``. The packages are named ``models``, ``data`` and ``utils``, as the scripts in this folder
import them; other projects use these names, too, so this module puts this folder first and fails if it comes too late.
"""

import sys
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).parent.resolve()
sys.path.insert(0, str(ROOT))

for name in ("models", "data", "utils"):
    if not str(import_module(name).__file__).startswith(str(ROOT)):
        raise ImportError(f"cares_unet: another package {name} is already imported; import cares_unet before it")

from models import MODELS, build_model
from utils.config import RECIPES, PredictionConfig, TrainingConfig
from utils.inference.predictor import Prediction, Predictor
from utils.training.data import read_labeled, read_pseudo_labeled
from utils.training.loop import fit
from utils.training.methods import SEMI_SUPERVISED, MeanTeacher, PseudoLabels, Supervised
from utils.training.start import Start
