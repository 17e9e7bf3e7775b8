"""Show the lesions of slices and scans on a page in the browser, on this machine alone."""

import argparse
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from data.errors import InputError, installed
from utils.cli.machine import add_device_options
from utils.cli.parser import Parser, number, run, settings
from utils.cli.prediction import add_networks_option, add_prediction_options
from utils.config import PredictionConfig
from utils.inference.predictor import Predictor
from utils.viewer.drawing import LAYERS, WINDOWS, WITHOUT_TRUTH, Look, draw, draw_burden, slice_at
from utils.viewer.files import summary, write_files
from utils.viewer.study import Study, read_study

if TYPE_CHECKING:
    import gradio

ABOUT = """# CARes-UNet: COVID-19 lesions in chest CT
Drop a slice, several slices, a NIfTI scan, or a DICOM series (all of its files); each also as a zip. Everything stays
on this machine; files are deleted after an hour and when the program ends. **For research only, not for diagnosis.**"""
EMPTY = "Drop a file or choose an example, then press **Find lesions**."
COLOURS = "right and wrong: white right, red too much, blue missed"
# The wheel over the picture, and the arrow keys, move the slider of the slice.
KEYS = """
() => {
  const move = (by) => {
    const input = document.querySelector('#slice input[type=range]');
    if (!input) return;
    const set = Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set;
    set.call(input, Math.min(+input.max, Math.max(+input.min, +input.value + by)));
    for (const kind of ['input', 'change', 'pointerup']) input.dispatchEvent(new Event(kind, {bubbles: true}));
  };
  document.addEventListener('keydown', (event) => {
    const focus = document.activeElement;
    if (focus.tagName === 'TEXTAREA' || (focus.tagName === 'INPUT' && focus.type !== 'range')) return;
    const by = {ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1}[event.key];
    if (by) { move(by); event.preventDefault(); }
  });
  // After a click on a choice, the arrow keys belong to the slices again; whoever comes by Tab keeps them.
  document.addEventListener('click', (event) => {
    if (event.detail && event.target.type === 'radio') event.target.blur();
  });
  document.addEventListener('wheel', (event) => {
    if (event.target.closest('#view')) { move(event.deltaY > 0 ? 1 : -1); event.preventDefault(); }
  }, {passive: false});
}
"""


def main() -> None:
    args, prediction = parse()
    predictor = Predictor(*args.pretrained_model, **vars(prediction))
    for number_ in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        signal.signal(number_, lambda *_: sys.exit(0))  # which deletes the files of the page
    with tempfile.TemporaryDirectory(prefix="cares_unet_") as folder:
        os.environ |= {"GRADIO_TEMP_DIR": folder, "GRADIO_ANALYTICS_ENABLED": "False"}
        page = build_page(predictor, Path(folder))
        try:
            page.launch(
                server_name="127.0.0.1",
                server_port=args.port,
                inbrowser=args.open,
                quiet=True,
                footer_links=[],
                prevent_thread_lock=True,
            )
        except OSError as error:
            if args.port is None:
                raise
            raise InputError(f"--port {args.port}: is in use; give another one, or leave it out") from error
        print(f"{'page':<11} {page.local_url} (Ctrl-C ends it)", flush=True)
        page.block_thread()


def parse(arguments: Sequence[str] | None = None) -> tuple[argparse.Namespace, PredictionConfig]:
    parser = Parser(__doc__, prog="demo.py")
    add_networks_option(parser, "--pretrained_model", default=["small"])
    parser.add_argument("--port", type=number(int, 0, 65535), default=None, help="default: 7860 or the next free one")
    parser.add_argument("--open", action=argparse.BooleanOptionalAction, default=False, help="open a browser")
    add_prediction_options(parser)
    add_device_options(parser)
    args = parser.parse_args(arguments)
    return args, settings(args, PredictionConfig)


def build_page(predictor: Predictor, folder: Path) -> "gradio.Blocks":
    """The page. Files for it are written below ``folder``. Raises InputError without gradio."""
    installed("gradio")
    import gradio as gr

    examples = draw_examples(folder / "examples")

    def show(study: Study | None, index: float, *how: Any) -> tuple:
        if study is None:
            return None, None, EMPTY
        look = look_of(*how)
        at = min(max(int(index or 1), 1), len(study.maps)) - 1
        return draw(study, at, look), draw_burden(study, at, look.threshold), describe(study, at, look.threshold)

    progress = gr.Progress(track_tqdm=True)

    def open_files(
        files: list[str] | None, truths: list[str] | None, threshold: float, progress: Any = progress
    ) -> tuple:
        study, threshold = read(files or (), truths or (), predictor), threshold or Look.threshold
        count = len(study.maps)
        slider = gr.Slider(minimum=1, maximum=max(count, 2), value=study.worst(threshold) + 1, visible=count > 1)
        known = study.truths is not None
        layers = gr.Radio(LAYERS if known else WITHOUT_TRUTH, value="lesions", info=COLOURS if known else None)
        return study, slider, layers, gr.Radio(visible=study.volume is not None), None

    def clear() -> tuple:
        return None, None, None, EMPTY, gr.Slider(value=1, visible=False), None

    def download(study: Study | None, threshold: float, window: str) -> list[str]:
        if study is None:
            raise gr.Error("nothing to download yet; find lesions first", print_exception=False)
        place, threshold = Path(tempfile.mkdtemp(dir=folder)), threshold or Look.threshold
        return list(map(str, write_files(study, replace(Look(), threshold=threshold, window=window), place)))

    def pick(study: Study | None, event: gr.SelectData) -> Any:
        return 1 if study is None else slice_at(event.index[0], len(study.maps)) + 1

    with gr.Blocks(title="CARes-UNet", delete_cache=(600, 3600)) as page:
        gr.Markdown(ABOUT)
        study = gr.State(None)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                files = gr.File(file_count="multiple", label="slices or a scan", elem_id="files")
                with gr.Accordion("true lesions, if known", open=False):
                    truths = gr.File(file_count="multiple", label="masks", elem_id="truths")
                find = gr.Button("Find lesions", variant="primary", elem_id="find")
                names, label = ["scan", "scan and truth", "slices"], "examples, if you have no file"
                gr.Examples(examples, inputs=[files, truths], example_labels=names, label=label)
                threshold = gr.Slider(0.02, 0.98, 0.5, step=0.02, label="threshold", elem_id="threshold")
                layer = gr.Radio(WITHOUT_TRUTH, value="lesions", label="layer", elem_id="layer")
                shape = gr.Radio(["outline", "fill"], value="outline", label="lesions as")
                opacity = gr.Slider(0, 1, 0.5, step=0.05, label="opacity of all but outlines")
                window = gr.Radio(list(WINDOWS), value="lung", label="window", visible=False, elem_id="window")
            with gr.Column(scale=2):
                about = gr.Markdown(EMPTY, elem_id="about")
                view = gr.Image(label="slice", interactive=False, elem_id="view", format="png", buttons=["fullscreen"])
                label = "slice (arrow keys, mouse wheel, or a click below)"
                index = gr.Slider(1, 2, 1, step=1, label=label, visible=False, elem_id="slice")
                curve = gr.Image(
                    show_label=False,
                    label="lesion of each slice",
                    interactive=False,
                    elem_id="curve",
                    format="png",
                    buttons=[],
                )
                save = gr.Button("Prepare files to download", elem_id="save")
                label = "mask, map, table, report"
                saved = gr.File(label=label, file_count="multiple", interactive=False, elem_id="saved")
        inputs, outputs = [study, index, threshold, layer, shape, opacity, window], [view, curve, about]
        opened = [study, index, layer, window, saved]
        find.click(open_files, [files, truths, threshold], opened).then(show, inputs, outputs)
        # So that no result, and no truth, is taken for that of other files.
        gr.on([files.change, truths.change], clear, None, [study, view, curve, about, index, saved])
        gr.on([files.upload, files.clear], lambda: None, None, [truths])
        for control in (index, threshold, layer, shape, opacity, window):
            control.change(show, inputs, outputs, show_progress="hidden", trigger_mode="always_last")
        threshold.change(lambda: None, None, [saved])  # files of another threshold
        curve.select(pick, [study], [index])
        save.click(download, [study, threshold, window], [saved])
        page.load(None, js=KEYS)
    return page


def read(files: Sequence[str], truths: Sequence[str], predictor: Predictor) -> Study:
    """A study of what was dropped. Raises an error of gradio, which is a message on the page."""
    import gradio as gr

    try:
        return read_study(list(map(Path, files)), predictor, list(map(Path, truths)))
    except (InputError, OSError, MemoryError) as error:
        flag = " (a flag of demo.py and test.py)" if "--" in str(error) else ""
        raise gr.Error(f"{error}{flag}", duration=None, print_exception=False) from error


def look_of(threshold: float | None, layer: str, shape: str, opacity: float | None, window: str) -> Look:
    """How to draw, by the controls of the page; None: an emptied box."""
    numbers = {"threshold": threshold, "opacity": opacity}
    given = {name: value for name, value in numbers.items() if value is not None}
    return Look(layer=layer, outline=shape == "outline", window=window, **given)


def describe(study: Study, index: int, threshold: float) -> str:
    """What is measured, as Markdown."""
    here = f"{study.names[index]}: {study.mask(index, threshold).mean():.1%} lesion"
    if study.volume is None:
        here += f", reliability {study.reliability[index]:.2f}"
    note = study.notes[min(index, len(study.notes) - 1)]
    return f"**{summary(study, threshold)}**\n\n{here}" + (f"\n\n⚠️ {note}" if note else "")


def draw_examples(folder: Path) -> list[list]:
    """A phantom scan, with and without its truth, and phantom slices: nobody's data."""
    import nibabel

    from data.io.geometry import TO_RAS
    from data.phantom.slices import draw_slice
    from data.phantom.volumes import draw_volume
    from data.preprocess.window import LUNG

    folder.mkdir(parents=True)
    hu, lesions = draw_volume(np.random.default_rng(3), 128, 24)
    affine = TO_RAS @ np.diag([3.0, 3.0, 12.0, 1.0])
    for name, voxels in (("scan", hu.astype(np.int16)), ("scan_truth", lesions.astype(np.uint8))):
        nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(voxels.T), affine), folder / f"{name}.nii.gz")
    slices = []
    for seed in range(4):
        path = folder / f"slice_{seed}.png"
        Image.fromarray(LUNG.to_gray(draw_slice(np.random.default_rng(seed), 256)[0])).save(path)
        slices.append(str(path))
    scan, truth = str(folder / "scan.nii.gz"), str(folder / "scan_truth.nii.gz")
    return [[[scan], None], [[scan], [truth]], [slices, None]]


if __name__ == "__main__":
    run(main)
