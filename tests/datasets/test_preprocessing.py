import dataclasses
import json

import numpy as np
import pytest
from PIL import Image

from datasets import DatasetError, Preprocessing

NCHW = ["N", 3, 32, 32]


def picture(height, width, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def raw(size, **fields):
    """Bound so that only the geometry matters: uint8, NHWC."""
    return dataclasses.replace(Preprocessing.preset("raw"), **fields).bound_to([1, *size, 3], "uint8")


# values: (pixel / 255 - mean) / std, worked out by hand


def test_imagenet_values_by_hand():
    image = np.full((32, 32, 3), (255, 128, 0), np.uint8)
    found = Preprocessing.preset("imagenet").bound_to(NCHW, "float32")(image)
    assert found.shape == (3, 32, 32)
    assert found.dtype == np.float32
    assert found.flags.c_contiguous
    # (1 - .485) / .229, (128 / 255 - .456) / .224, (0 - .406) / .225
    assert np.allclose(found[:, 5, 7], [2.2489083, 0.2051821, -1.8044444], atol=1e-6)


@pytest.mark.parametrize(
    ("preset", "black", "white"),
    [
        ("imagenet-tf", [-1, -1, -1], [1, 1, 1]),
        ("unit", [0, 0, 0], [1, 1, 1]),
        ("yolo", [0, 0, 0], [1, 1, 1]),
        ("cifar10", [-1.9894737, -1.9802875, -1.7068043], [2.0591093, 2.1264887, 2.1158257]),
        ("raw", [0, 0, 0], [255, 255, 255]),
    ],
)
def test_preset_values_of_black_and_white(preset, black, white):
    call = Preprocessing.preset(preset).bound_to(NCHW, "float32")
    assert np.allclose(call(np.zeros((32, 32, 3), np.uint8))[:, 0, 0], black, atol=1e-6)
    assert np.allclose(call(np.full((32, 32, 3), 255, np.uint8))[:, 0, 0], white, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_batches_match_the_formula_in_double_precision(dtype):
    images = np.stack([picture(6, 5, seed) for seed in range(4)])
    base = dataclasses.replace(Preprocessing.preset("imagenet"), color="bgr")
    found = base.bound_to([None, 6, 5, 3], dtype).normalised(images)
    expected = (images[..., ::-1] / 255 - np.array(base.mean)) / np.array(base.std)
    assert found.dtype == dtype
    assert found.flags.c_contiguous
    assert np.abs(found - expected).max() <= {"float32": 1e-6, "float16": 1.5e-3, "float64": 1e-12}[dtype]


def test_channel_order_mean_and_layout_go_together():
    image = np.full((2, 2, 3), (10, 20, 30), np.uint8)
    base = Preprocessing(scale=1.0, mean=(1, 2, 3), std=(1, 2, 4), color="bgr")
    assert base.bound_to([1, 3, 2, 2], "float32")(image)[:, 0, 0].tolist() == [29.0, 9.0, 1.75]
    assert base.bound_to([1, 2, 2, 3], "float32")(image)[0, 0].tolist() == [29.0, 9.0, 1.75]


def test_grey_is_pillows_luma():
    image = picture(40, 30)
    found = Preprocessing(scale=1.0, color="grey").bound_to([1, 1, 40, 30], "uint8")(image)
    assert found.shape == (1, 40, 30)
    assert np.array_equal(found[0], np.asarray(Image.fromarray(image).convert("L")))


def test_uint8_passes_pixels_through():
    image = picture(8, 8)
    assert np.array_equal(raw((8, 8))(image), image)
    planar = Preprocessing.preset("raw").bound_to([1, 3, 8, 8], "uint8")(image)
    assert planar.dtype == np.uint8
    assert np.array_equal(planar, image.transpose(2, 0, 1))


# geometry


@pytest.mark.parametrize("shape", [(300, 500), (500, 300), (256, 256), (100, 90), (224, 225), (1000, 333)])
def test_crop_is_resize_256_and_centre_crop_224(shape):
    height, width = shape
    image = picture(*shape)
    scale = 256 / min(shape)
    size = (int(width * scale + 1e-9), 256) if height <= width else (256, int(height * scale + 1e-9))
    resized = Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)
    left, top = round((size[0] - 224) / 2), round((size[1] - 224) / 2)
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    assert np.array_equal(raw((224, 224))(image), expected)


def test_crop_agrees_with_torchvision():
    transforms = pytest.importorskip("torchvision.transforms", reason="torchvision is not installed")
    reference = transforms.Compose([transforms.Resize(342), transforms.CenterCrop(299)])  # 299 / 0.875 = 341.7
    for shape in ((301, 407), (407, 301), (640, 480), (90, 700)):
        image = picture(*shape)
        assert np.array_equal(raw((299, 299))(image), np.asarray(reference(Image.fromarray(image))))


def test_crop_of_an_oblong_size_covers_it():
    # 50 x 100 with nothing cut away, from 100 x 100: scaled to 100 x 100 to cover the width, rows 25..75 stay.
    image = picture(100, 100)
    assert np.array_equal(raw((50, 100), crop_fraction=1.0)(image), image[25:75])


def test_exact_size_is_taken_as_it_is_unless_told_otherwise():
    image = picture(32, 32)
    assert np.array_equal(raw((32, 32))(image), image)
    scaled = Image.fromarray(image).resize((37, 37), Image.Resampling.BILINEAR)  # round(32 / 0.875) = 37
    assert np.array_equal(raw((32, 32), keep_exact=False)(image), np.asarray(scaled)[2:34, 2:34])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_stretch_is_pillows_resize(interpolation):
    image = picture(30, 70)
    expected = Image.fromarray(image).resize((20, 40), Image.Resampling[interpolation.upper()])
    assert np.array_equal(raw((40, 20), resize="stretch", interpolation=interpolation)(image), np.asarray(expected))


def test_letterbox_keeps_the_ratio_and_pads_the_rest():
    image = np.full((50, 100, 3), 200, np.uint8)
    found = raw((64, 64), resize="letterbox")(image)  # 100 -> 64, 50 -> 32, 16 rows above and below
    assert (found[16:48] == 200).all()
    assert (found[:16] == 114).all()
    assert (found[48:] == 114).all()
    found = raw((64, 64), resize="letterbox", pad_value=0)(image.transpose(1, 0, 2).copy())
    assert (found[:, 16:48] == 200).all()
    assert (found[:, :16] == 0).all()


def test_letterbox_of_a_sliver_keeps_one_pixel():
    assert (raw((32, 32), resize="letterbox")(np.full((1, 1000, 3), 9, np.uint8)) == 9).any(axis=(1, 2)).sum() == 1


def test_resize_none_accepts_the_size_only():
    image = picture(8, 9)
    assert np.array_equal(raw((8, 9), resize="none")(image), image)
    with pytest.raises(DatasetError, match=r"9 x 8 pixels .* but resize 'none' takes 8 x 9 only; set resize to 'crop'"):
        raw((8, 9), resize="none")(picture(9, 8))


# binding


@pytest.mark.parametrize(
    ("shape", "layout", "size"),
    [
        (["N", 3, 224, 192], "nchw", (224, 192)),
        ([1, 224, 192, 3], "nhwc", (224, 192)),
        ([-1, None, 224, 192], "nchw", (224, 192)),
        ([None, 224, 192, "C"], "nhwc", (224, 192)),
    ],
)
def test_binding_takes_layout_size_and_dtype_from_the_model(shape, layout, size):
    unbound = Preprocessing.preset("imagenet")
    bound = unbound.bound_to(shape, "float16")
    assert (bound.layout, bound.size, bound.dtype) == (layout, size, "float16")
    assert bound.sample_shape == ((3, *size) if layout == "nchw" else (*size, 3))
    assert bound.is_bound
    assert not unbound.is_bound
    assert bound.bound_to(shape, "float16") == bound


def test_open_spatial_axes_take_the_stated_size():
    bound = Preprocessing(size=(48, 64)).bound_to(["N", 3, "H", "W"], "float32")
    assert bound.sample_shape == (3, 48, 64)
    assert Preprocessing(layout="nhwc", size=(4, 5)).bound_to([None] * 4, "float32").sample_shape == (4, 5, 3)


@pytest.mark.parametrize(
    ("fields", "shape", "dtype", "message"),
    [
        (
            {},
            ["N", 3],
            "float32",
            r"the model input \[N, 3\] takes no images: expected \[N, C, H, W\] or \[N, H, W, C\]",
        ),
        ({}, ["N", 1, 28, 28], "float32", r"\[N, 1, 28, 28\] fits the 3 channels of color 'rgb'.*set color = 'grey'"),
        ({"color": "grey"}, [1, 3, 8, 8], "float32", r"fits the 1 channel of color 'grey'.*; set color = 'rgb'"),
        ({}, ["N", 4, 28, 28], "float32", r"expected \[N, 3, H, W\] or \[N, H, W, 3\]; set color = 'rgba'$"),
        ({}, ["N", 6, 28, 28], "float32", r"; images of other channels come as \.npy files or as HDF5$"),
        ({"size": (32, 32)}, [1, 3, 64, 64], "float32", r"size \[32, 32\] is stated, but .* height 64 and width 64"),
        ({"size": (32, 32)}, [1, 3, None, 64], "float32", r"leave size out to use the model's"),
        ({}, [None, 3, "h", "w"], "float32", r"\[\?, 3, h, w\] leaves the image size open; state it with --input-size"),
        ({"layout": "nchw"}, [1, 8, 8, 3], "float32", r"layout 'nchw' .* needs size 3 on axis 1 of .*, found 8"),
        ({"layout": "nhwc"}, [1, 3, 8, 8], "float32", r"layout 'nhwc' .* needs size 3 on axis 3 of .*, found 8"),
        ({}, [1, 3, 9, 3], "float32", r"can be read as nchw or as nhwc; state the layout"),
        ({}, [None] * 4, "float32", r"can be read as nchw or as nhwc; state the layout"),
        ({}, [1, 3, 8, 8], "int64", r"takes int64; images can be given as float32, float16, float64 or uint8"),
        ({}, [1, 3, 8, 8], "auto", r"takes auto; images can be given"),
        (
            {"dtype": "float32"},
            [1, 3, 8, 8],
            "float16",
            r"dtype 'float32' is stated, but the model input takes float16",
        ),
        ({}, [1, 3, 8, 8], "uint8", r"uint8 takes pixels as they are, but preprocessing 'custom' normalises them; set"),
    ],
)
def test_binding_refuses_what_does_not_fit(fields, shape, dtype, message):
    with pytest.raises(DatasetError, match=message):
        Preprocessing(**fields).bound_to(shape, dtype)


def test_calling_unbound_is_an_error():
    with pytest.raises(DatasetError, match="preprocessing 'imagenet' is not bound to a model input; call bound_to"):
        Preprocessing.preset("imagenet")(picture(8, 8))


# fields, TOML, digest


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"resize": "zoom"}, "resize: expected one of crop, stretch, letterbox, none; found 'zoom'"),
        ({"color": "gray"}, "color: expected one of rgb, bgr, grey, rgba, bgra; found 'gray'"),
        ({"std": (0.2, 0.0, 0.2)}, "std: expected numbers above 0"),
        ({"mean": (float("nan"),)}, "mean: expected a finite number, found nan"),
        ({"mean": (1, 2)}, "mean: expected a list of 1 or 3 numbers"),
        ({"mean": (1, 2, 3), "color": "grey"}, "mean: expected a list of 1 number, found"),
        ({"mean": ("a",)}, "mean: expected a finite number, found 'a'"),
        ({"scale": 0}, "scale: 0 makes every pixel the same"),
        ({"scale": True}, "scale: expected a finite number, found True"),
        ({"crop_fraction": 0}, "crop_fraction: expected a number above 0 and at most 1, found 0"),
        ({"crop_fraction": 1.5}, "crop_fraction: expected"),
        ({"pad_value": 256}, "pad_value: expected a whole number from 0 to 255, found 256"),
        ({"size": (0, 5)}, r"size: expected \[height, width\] in whole pixels"),
        ({"size": (5.0, 5)}, r"size: expected \[height, width\]"),
        ({"keep_exact": 1}, "keep_exact: expected true or false, found 1"),
        ({"name": 1}, "name: expected text, found 1"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(DatasetError, match=message):
        Preprocessing(**fields)


@pytest.mark.parametrize("preset", ["imagenet", "imagenet-tf", "unit", "yolo", "cifar10", "raw"])
def test_toml_round_trip(tmp_path, preset):
    path = tmp_path / "p.toml"
    for preprocessing in (
        Preprocessing.preset(preset),
        dataclasses.replace(Preprocessing.preset(preset), name='a "quoted" name, é', size=(17, 5), scale=1e-5),
    ):
        path.write_text(preprocessing.to_toml(), encoding="utf-8")
        assert Preprocessing.from_toml(path) == preprocessing
        assert Preprocessing.from_spec(str(path)).digest() == preprocessing.digest()


def test_toml_starts_from_a_preset_and_takes_short_forms(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('preset = "imagenet"\nsize = 96\nstd = 0.5\ncolor = "bgr"\n')
    expected = dataclasses.replace(
        Preprocessing.preset("imagenet"), name="mine", size=(96, 96), std=(0.5,), color="bgr"
    )
    assert Preprocessing.from_toml(path) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sise = 3", "p.toml: unknown key 'sise'; the keys are preset, name, size, resize"),
        ("size = 'big'", r"p.toml: size: expected \[height, width\] in whole pixels, found 'big'"),
        ("std = [0, 1, 1]", "p.toml: std: expected numbers above 0"),
        ("mean = nan", "p.toml: mean: expected a finite number, found nan"),
        ("preset = 'vgg'", "p.toml: no preset 'vgg'; expected one of imagenet, imagenet-tf, unit, yolo, cifar10, raw"),
        ("preset = 3", "p.toml: no preset 3"),
        ("preset = ['unit']", "p.toml: no preset"),
        ("size = [1", "p.toml: not valid TOML: "),
        ("dtype = 'uint8'", "p.toml: uint8 takes pixels as they are"),
        ("resize = []", "p.toml: resize: expected one of"),
    ],
)
def test_wrong_toml_is_told_with_the_file(tmp_path, text, message):
    path = tmp_path / "p.toml"
    path.write_text(text)
    with pytest.raises(DatasetError, match=message) as caught:
        Preprocessing.from_toml(path)
    assert "\n" not in str(caught.value)


def test_missing_toml_and_unknown_preset(tmp_path):
    with pytest.raises(DatasetError, match=r"none\.toml: no such file; expected a preprocessing description"):
        Preprocessing.from_spec(str(tmp_path / "none.toml"))
    with pytest.raises(
        DatasetError, match=r"no preset 'vgg'; expected one of imagenet, .*, or a path ending in \.toml"
    ):
        Preprocessing.from_spec("vgg")
    with pytest.raises(DatasetError, match="no preset 'vgg'; expected one of imagenet"):
        Preprocessing.preset("vgg")


def test_dict_is_json_and_digest_follows_values_only():
    preprocessing = Preprocessing.preset("imagenet")
    assert json.loads(json.dumps(preprocessing.to_dict())) == preprocessing.to_dict()
    assert preprocessing.to_dict()["mean"] == [0.485, 0.456, 0.406]
    assert preprocessing.digest() == dataclasses.replace(preprocessing, name="other").digest()
    assert preprocessing.digest() != dataclasses.replace(preprocessing, pad_value=0).digest()
    assert Preprocessing(scale=1, mean=[0]).digest() == Preprocessing(scale=1.0, mean=(0.0,)).digest()
    assert len(preprocessing.digest()) == 64


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "crop"])
@pytest.mark.parametrize("shape", [(48, 100), (100, 48), (200, 120), (64, 64), (63, 65)])
def test_boxes_are_found_again_in_the_image_that_was_resized(resize, shape):
    """A bright block is resized with the image; where it is then must lead back to where it was."""
    preprocessing = Preprocessing(resize=resize, size=(64, 64), layout="nchw", dtype="float32")
    height, width = shape
    top, left, bottom, right = height // 2 - 15, width // 2 - 12, height // 2 + 15, width // 2 + 12
    image = np.zeros((*shape, 3), np.uint8)
    image[top:bottom, left:right] = 255
    inside = preprocessing.fitted(image)[..., 0] > 160
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    seen = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], np.float64)
    frame = preprocessing.frame(*shape)
    found = frame.in_image(seen)[0]
    assert np.abs(found - [left, top, right, bottom]).max() <= 1 / min(frame.scale)
    whole = frame.in_image(np.array([[-500.0, -500, 500, 500]]))[0]
    assert whole.tolist() == [0, 0, width, height]
