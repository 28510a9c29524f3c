"""Augmented training batches: torchvision's transforms, a draw for every picture, nothing but training batches, and exact resumption."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback
from safetensors.torch import load_file
from tiny_runs import TINY, assert_same_run, blobs, pictures, prices, rows_of
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from lmn_graph.augment import AUGMENTATIONS, Augmentation, Pictures, affine
from lmn_graph.training import configure, open_run, resume, train

BILINEAR = v2.InterpolationMode.BILINEAR
OPTIONS = {
    "degrees": 30.0, "translate": 0.2, "scale": (0.8, 1.2), "shear": 10.0, "flip": 0.5, "crop": 2, "brightness": 0.4, "contrast": 0.4,
    "saturation": 0.4, "hue": 0.2, "erase": 0.9, "policy": "trivial",
}  # fmt: skip
COLOUR_ONLY = ("saturation", "hue")
SHAPES = {"grey": (9, 11), "colour": (3, 9, 11)}


def options_for(shape):
    return {name: value for name, value in OPTIONS.items() if len(shape) == 3 or name not in COLOUR_ONLY}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_each_option_by_itself_and_all_together_keep_shape_and_range(shape, generator):
    """Every option changes some pictures; what comes out are pictures of the same shape and dtype in [0, 1]."""
    given = options_for(shape)
    for options in (*({name: value} for name, value in given.items()), {"policy": "rand"}, {"policy": "augmix"}, given):
        augment = Pictures(shape, **options)
        for dtype in (torch.float32, torch.float64):
            x = torch.rand(24, *shape, generator=generator, dtype=dtype)
            before = x.clone()
            found = augment(x)
            assert found.shape == x.shape, options
            assert found.dtype == dtype, options
            assert 0 <= float(found.min()) <= float(found.max()) <= 1, options
            assert not torch.equal(found, x), options
            assert torch.equal(x, before), options


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_it_is_torchvision_picture_by_picture(shape, generator):
    """The same draws through torchvision's own classes, one kind after the other, in the order that is documented."""
    given = {name: value for name, value in options_for(shape).items() if name not in ("degrees", "translate", "scale", "shear")}
    x = torch.rand(6, *shape, generator=generator)
    transforms = [
        v2.TrivialAugmentWide(interpolation=BILINEAR, fill=0.5),
        v2.RandomCrop(shape[-2:], padding=2, fill=0.5),
        v2.RandomHorizontalFlip(0.5),
        v2.ColorJitter(0.4, 0.4, *((0.4, 0.2) if len(shape) == 3 else (0, 0))),
        v2.RandomErasing(0.9, value=0.5),
    ]
    torch.manual_seed(3)
    found = Pictures(shape, **given, fill=0.5)(x)
    torch.manual_seed(3)
    expected = x if len(shape) == 3 else x.unsqueeze(1)
    for transform in transforms:
        expected = torch.stack([transform(picture) for picture in expected])
    assert torch.equal(found, expected.view_as(x).clamp(0, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_affine_map_is_torchvisions(channels, generator, monkeypatch):
    """All pictures at once, each by numbers of its own, as torchvision does one: angle, shift, scale and both shears; in any blocks."""

    def drawn(low, high):
        return torch.rand(8, generator=generator, dtype=torch.float64) * (high - low) + low

    pictures = torch.rand(8, channels, 7, 10, generator=generator, dtype=torch.float64)
    angle, shift, scale, shear = drawn(-180, 180), (drawn(-3, 3), drawn(-2, 2)), drawn(0.5, 2), (drawn(-40, 40), drawn(-40, 40))
    found = affine(pictures, angle, shift, scale, shear)
    for row in range(8):
        numbers = float(angle[row]), [float(t[row]) for t in shift], float(scale[row]), [float(s[row]) for s in shear]
        expected = functional.affine(pictures[row], *numbers, interpolation=BILINEAR, fill=None)
        torch.testing.assert_close(found[row], expected, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr("lmn_graph.augment._BLOCK", 3 * pictures[0].numel())
    assert torch.equal(affine(pictures, angle, shift, scale, shear), found)
    wide = torch.nn.functional.pad(pictures, (40, 40, 40, 40), value=0.3)
    torch.testing.assert_close(
        affine(pictures, angle, shift, scale, shear, 0.3), affine(wide, angle, shift, scale, shear)[..., 40:-40, 40:-40]
    )


def test_the_numbers_of_the_affine_map_are_in_their_ranges(monkeypatch):
    seen = []
    monkeypatch.setattr("lmn_graph.augment.affine", lambda pictures, *numbers: (seen.append(numbers), pictures)[1])
    Pictures((3, 20, 40), degrees=30, translate=0.1, scale=(0.5, 1.5), shear=10, fill=0.25)(torch.rand(400, 3, 20, 40))
    ((angle, (right, down), scale, shear, fill),) = seen
    for found, low, high in ((angle, -30, 30), (right, -4, 4), (down, -2, 2), (scale, 0.5, 1.5), (shear[0], -10, 10), (shear[1], -10, 10)):
        assert low <= float(found.min()) < low + 0.1 * (high - low)
        assert high - 0.1 * (high - low) < float(found.max()) <= high
        assert len(found.unique()) > 390
    assert fill == 0.25


def test_every_picture_has_a_draw_of_its_own(generator):
    """Of equal pictures no two come out the same; of a second pass neither."""
    x = torch.rand(1, 12, 12, generator=generator).expand(20, -1, -1)
    augment = Pictures((12, 12), degrees=90, translate=0.3)
    found = torch.cat([augment(x), augment(x)])
    assert len(torch.unique(found, dim=0)) == 40


def test_a_mirror_image_and_a_crop_are_what_they_say(generator):
    x = torch.rand(40, 5, 6, generator=generator)
    flipped = Pictures((5, 6), flip=1.0)(x)
    assert torch.equal(flipped, x.flip(-1))
    assert torch.equal(Pictures((5, 6))(x), x)
    padded = torch.nn.functional.pad(x, (1, 1, 1, 1), value=1.0)
    windows = {(i, j): padded[:, i : i + 5, j : j + 6] for i in range(3) for j in range(3)}
    cropped = Pictures((5, 6), crop=1, fill=1.0)(x)
    places = [next(place for place, window in windows.items() if torch.equal(window[row], cropped[row])) for row in range(40)]
    assert len(set(places)) > 4


def test_a_shift_moves_the_centre_of_mass_as_far_as_allowed():
    """At most translate times the side, to either side, in whole and part pixels."""
    x = torch.zeros(200, 21, 21)
    x[:, 10, 10] = 1
    found = Pictures((21, 21), translate=0.2)(x)
    places = torch.arange(21.0) - 10
    moved = torch.stack([(found.sum(1) * places).sum(1), (found.sum(2) * places).sum(1)])
    assert float(moved.abs().max()) <= 0.2 * 21
    assert float(moved.min()) < -3
    assert float(moved.max()) > 3
    assert float(moved.mean().abs()) < 0.5


def test_an_empty_batch_and_half_precision_around_it():
    augment = Pictures((8, 8), degrees=20)
    assert augment(torch.rand(0, 8, 8)).shape == (0, 8, 8)
    x = torch.rand(4, 8, 8)
    torch.manual_seed(1)
    expected = augment(x)
    torch.manual_seed(1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(augment(x), expected)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((4,), {}, r"in_shape must be \(height, width\) or \(3, height, width\) for augment = Pictures, got \(4,\)"),
        ((2, 2, 3, 4, 4), {}, r"for augment = Pictures, got \(2, 2, 3, 4, 4\): .* already cut into patches"),
        ((4, 8, 8), {}, r"for augment = Pictures, got \(4, 8, 8\)"),
        ((8, 8), {"degrees": 200}, r"augment\.degrees must be a finite number in \[0, 180\], got 200"),
        ((8, 8), {"translate": -0.1}, r"augment\.translate must be a finite number in \[0, 1\], got -0\.1"),
        ((8, 8), {"flip": 2}, r"augment\.flip must be a finite number in \[0, 1\], got 2"),
        ((8, 8), {"crop": 1.5}, r"augment\.crop must be an integer >= 0, got 1\.5"),
        ((8, 8), {"scale": (1.2, 0.8)}, r"augment\.scale must be the smallest and the largest factor, got \(1\.2, 0\.8\)"),
        ((8, 8), {"scale": (0.0, 0.8)}, r"augment\.scale must be a finite number > 0, got 0"),
        ((8, 8), {"scale": (0.8,)}, r"augment\.scale must be the smallest and the largest factor, got \(0\.8,\)"),
        ((8, 8), {"hue": 0.1}, r"augment\.hue must be 0 for grey pictures, which have none, got 0\.1"),
        ((3, 8, 8), {"hue": 0.6}, r"augment\.hue must be a finite number in \[0, 0\.5\], got 0\.6"),
        ((3, 8, 8), {"contrast": float("nan")}, r"augment\.contrast must be a finite number >= 0, got nan"),
        ((3, 8, 8), {"policy": "auto"}, r"augment\.policy must be one of 'none', 'trivial', 'rand', 'augmix', got 'auto'"),
    ],
)
def test_a_bad_argument_is_named(shape, options, message):
    with pytest.raises(ValueError, match=message):
        Pictures(shape, **options)


@pytest.mark.parametrize("bad", [-0.1, 1.5, float("nan")])
def test_values_that_are_no_pictures_are_refused(bad):
    x = torch.rand(3, 4, 4)
    x[1, 2, 3] = bad
    with pytest.raises(ValueError, match=r"x must be pictures in \[0, 1\] for augment = Pictures"):
        Pictures((4, 4), flip=0.5)(x)


def test_a_part_that_changes_the_shape_is_refused():
    class Halved(Augmentation):
        def augment(self, x):
            return x[:, ::2]

    with pytest.raises(
        ValueError, match=r"augment must return what it is given, torch.float32 \(2, 4\), got torch.float32 \(2, 2\) from Halved"
    ):
        Halved((4,))(torch.rand(2, 4))


# In a run


SMALL = [*TINY, "--trainer.checkpoint_every", "2"]
MOVED = ("--augment", "Pictures", "--augment.translate", "0.2", "--augment.degrees", "10", "--augment.scale", "[0.9, 1.1]")


class Stop(Callback):
    def __init__(self, step):
        self.step = step

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.global_step == self.step:
            raise RuntimeError("stopped")


def config_of(data, *more):
    return configure("soc-lattice", [], ["--data", str(data), "--data.size", "8", *SMALL, *more])


@pytest.fixture(autouse=True)
def _no_pictures(monkeypatch):
    monkeypatch.setattr("lmn_graph.report.plots.save_all", lambda *_: [])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return pictures(tmp_path_factory.mktemp("data"))


def test_a_stopped_run_goes_on_bit_for_bit(folder, tmp_path):
    """Draws are part of the random state that a checkpoint holds, inside an epoch too; without augmentation the run is another."""
    train(config_of(folder, *MOVED), tmp_path / "alone", progress=False)
    train(config_of(folder), tmp_path / "plain", progress=False)
    assert rows_of(tmp_path / "alone") != rows_of(tmp_path / "plain")
    for step in (1, 3):
        with pytest.raises(RuntimeError, match="stopped"):
            train(config_of(folder, *MOVED), tmp_path / f"run{step}", progress=False, callbacks=[Stop(step)])
        torch.manual_seed(step)
        resume(tmp_path / f"run{step}", progress=False)
        assert_same_run(tmp_path / "alone", tmp_path / f"run{step}")


def test_only_training_batches_are_augmented(folder, tmp_path, monkeypatch):
    """What reaches the machine in training is never a row of the data; in validation and test it always is one."""
    seen = {True: [], False: []}
    from lmn_graph import LatticeMachine

    original = LatticeMachine.forward

    def forward(self, x, *arguments, **keywords):
        seen[self.training].append(x.detach().clone())
        return original(self, x, *arguments, **keywords)

    monkeypatch.setattr(LatticeMachine, "forward", forward)
    run = train(config_of(folder, *MOVED, "--loss.burn_in", "0"), tmp_path / "run", progress=False)
    splits = run.splits()
    known = {row.numpy().tobytes() for split in (splits.train, splits.validation, splits.test) for row in split.x}
    training, rest = (torch.cat(seen[mode]) for mode in (True, False))
    assert len(training) == 3 * len(splits.train)
    assert not any(row.numpy().tobytes() in known for row in training)
    held_out = {row.numpy().tobytes() for split in (splits.validation, splits.test) for row in split.x}
    rehearsed = min(16, len(splits.train))  # the one pass before the run shows the first batch as training will
    assert len(rest) > rehearsed
    assert all(row.numpy().tobytes() in held_out for row in rest[rehearsed:])


@pytest.mark.slow
def test_it_works_with_local_learning(tmp_path):
    """A local rule learns from augmented pictures too, rows of which are its steps."""
    arguments = ["--augment", "Pictures", "--augment.crop", "2"]
    train(configure("filter-mnist", [], arguments), tmp_path / "one", smoke=True, progress=False)
    train(configure("filter-mnist"), tmp_path / "two", smoke=True, progress=False)
    models = [load_file(tmp_path / name / "checkpoints" / "best.safetensors") for name in ("one", "two")]
    assert any(not torch.equal(value, models[1][name]) for name, value in models[0].items())


def test_data_that_are_no_pictures_are_refused_before_anything_is_written(tmp_path):
    table = configure("tabular-soc", [], ["--data", str(prices(tmp_path)), "--data.target", "price", *TINY, *MOVED])
    with pytest.raises(ValueError, match=r"in_shape must be \(height, width\) or \(3, height, width\) for augment = Pictures"):
        train(table, tmp_path / "run", progress=False)
    arrays = configure("soc-lattice", [], ["--data", str(blobs(tmp_path)), *TINY, *MOVED])
    with pytest.raises(ValueError, match=r"x must be pictures in \[0, 1\] for augment = Pictures, got values in"):
        train(arrays, tmp_path / "run", progress=False)
    assert not (tmp_path / "run").exists()


PLUGIN = '''
"""Noise."""
import torch
from lmn_graph.augment import AUGMENTATIONS, Augmentation

@AUGMENTATIONS.register
class Noise(Augmentation):
    """Normal noise on every number.

    Args:
        in_shape: shape of one sample.
        sigma: standard deviation.
    """

    def __init__(self, in_shape, *, sigma: float = 0.1) -> None:
        super().__init__(in_shape)
        self.sigma = sigma

    def augment(self, x):
        return x + self.sigma * torch.randn_like(x)
'''


def test_a_class_of_ones_own_is_registered_listed_and_used(tmp_path, lmn):
    """On any data, here a table; a run that has it needs the plugin again."""
    plugin = tmp_path / "noise.py"
    plugin.write_text(PLUGIN)
    try:
        table = ["--data", prices(tmp_path), "--data.target", "price", *TINY]
        chosen = ["--plugin", plugin, "--augment", "Noise", "--augment.sigma", "0.5"]
        code, _, error = lmn("train", "tabular-soc", *table, *chosen, "--quiet", "--out", tmp_path / "run")
        assert code == 0, error
        assert open_run(tmp_path / "run").config["augment"] == {"name": "Noise", "sigma": 0.5}
        assert "Normal noise on every number." in lmn("list", "--plugin", plugin)[1]
    finally:
        AUGMENTATIONS._entries.pop("Noise", None)


def test_the_command_line_knows_it(refused, lmn):
    assert "unknown option '--augment.translat'; did you mean '--augment.translate'" in refused(
        "train", "mnist", "--augment", "Pictures", "--augment.translat", "0.1", "--print_config"
    )
    assert "unknown augmentation 'Picture'; did you mean 'Pictures'" in refused("train", "mnist", "--augment", "Picture", "--print_config")
    code, out, _ = lmn("train", "mnist", *MOVED, "--print_config")
    assert code == 0
    assert "scale:\n  - 0.9\n  - 1.1" in out
    assert "augment:\n  name: none" in lmn("train", "mnist", "--print_config")[1]


@pytest.mark.slow
def test_the_library_loads_no_torchvision():
    code = "import sys, lmn_graph, lmn_graph.augment; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parent).returncode == 0


def test_affine_maps_take_no_pictures_and_pictures_that_want_a_gradient():
    none = torch.zeros(0)
    assert affine(torch.zeros(0, 1, 4, 4), none, (none, none), none, (none, none)).shape == (0, 1, 4, 4)
    pictures = torch.rand(2, 1, 6, 6, dtype=torch.float64, requires_grad=True)
    zero, one = torch.zeros(2), torch.ones(2)
    assert torch.autograd.gradcheck(lambda x: affine(x, zero + 20, (zero + 1, zero), one, (zero, zero), 0.5), (pictures,))
