import pytest

from featurepipe.errors import UnknownNameError, UsageError
from featurepipe.features.framing import Framing
from featurepipe.features.model_files.normalisation import Normalisation
from featurepipe.features.model_files.preprocessing import Preprocessing, given_preprocessing

CROP = "shorter-side+crop"


def said(**values):
    return given_preprocessing(values, 224, None)


def test_numbers_may_be_fractions_in_a_text():
    found = said(scale="1/127.5", mean="1", std="1,1,1").normalisation()
    assert found == Normalisation(1 / 127.5, (1.0,) * 3, (1.0,) * 3)


def test_one_number_is_that_of_all_channels_and_three_are_in_their_order():
    found = said(mean="0.5", std="0.1, 0.2 0.3").normalisation()
    assert found == Normalisation(1 / 255, (0.5,) * 3, (0.1, 0.2, 0.3))
    assert said(mean=0.5, std=[0.1, 0.2, 0.3]).normalisation() == found


def test_none_is_pixels_as_they_are():
    found = given_preprocessing("none", 224, None)
    assert found.says_values
    assert found.normalisation() == Normalisation()
    # Whatever a sidecar says.
    beside = Preprocessing("a", scale=1 / 255, mean=(0.5,), std=(0.5,), channels="bgr", size_px=8)
    assert found.over(beside).normalisation() == Normalisation()


def test_a_mean_and_std_up_to_1_are_of_pixels_up_to_1():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert said(mean=mean, std=std).normalisation() == Normalisation(1 / 255, mean, std)
    assert said(scale=1, mean=mean).normalisation().scale == 1.0


@pytest.mark.parametrize(
    "values",
    [{"mean": "123.7,116.3,103.5"}, {"mean": "-2"}, {"std": "58.4"}, {"mean": 0, "std": 2}],
)
def test_a_scale_that_may_be_1_or_1_255_is_asked_for(values):
    with pytest.raises(UsageError, match=r"Add --scale 1 or --scale 1/255\.$"):
        said(**values).normalisation()
    assert said(**values, scale="1").normalisation().scale == 1.0


@pytest.mark.parametrize(
    "values, message",
    [
        ({"mean": "0.5,0.5"}, "--mean has 2 numbers, 0.5,0.5. Give one"),
        ({"std": [0.5] * 4}, "--std has 4 numbers"),
        ({"std": "0"}, "is impossible"),
        ({"std": "0.5,-0.5,0.5"}, "is impossible"),
        ({"scale": "0"}, "is impossible"),
        ({"scale": "-1/255"}, "is impossible"),
        ({"mean": "nan"}, "is impossible"),
        ({"scale": "1e999"}, "is impossible"),
    ],
)
def test_impossible_normalisations(values, message):
    with pytest.raises(UsageError, match=message):
        said(**values).normalisation()


@pytest.mark.parametrize(
    "values, message",
    [
        ({"scale": "1/0"}, r"--scale '1/0' is no number. Expected such as 1/255\."),
        ({"scale": "1,1"}, "--scale is '1,1'. Give one number."),
        ({"mean": "red"}, "--mean 'red' is no number. Expected such as 0.485,0.456,0.406."),
        ({"mean": ""}, "--mean '' is no number"),
        ({"std": "1/2/3"}, "--std '1/2/3' is no number"),
        ({"std": [None]}, "is no number"),
        ({"mean": {"r": 1}}, "is no number"),
        ({"crop_pct": "most"}, "--crop-pct 'most' is no number. Expected such as 0.875."),
        ({"crop_pct": 0}, "--crop-pct is 0.0. Set a share above 0 and up to 1."),
        ({"crop_pct": 1.01}, "Set a share above 0"),
        ({"crop_pct": float("nan")}, "Set a share above 0"),
    ],
)
def test_values_that_are_no_such_number(values, message):
    with pytest.raises(UsageError, match=message):
        said(**values)


@pytest.mark.parametrize(
    "values, message",
    [
        ({"resize": "crop"}, "Unknown resize 'crop'. Expected one of"),
        ({"channels": "brg"}, "Unknown channels 'brg'"),
        ({"interpolation": "cubic"}, "Unknown interpolation 'cubic'. Did you mean 'bicubic'"),
        ({"crop": 0.5}, "Unknown preprocessing option 'crop'"),
    ],
)
def test_names_that_do_not_exist(values, message):
    with pytest.raises(UnknownNameError, match=message):
        said(**values)
    with pytest.raises(UnknownNameError, match="Unknown --preprocess 'imagenet'"):
        given_preprocessing("imagenet", 224, None)


@pytest.mark.parametrize("size_px", [0, -1, 2**16 + 1])
def test_sizes_have_limits(size_px):
    with pytest.raises(UsageError, match=f"--size is {size_px}. Set 1 to 65536."):
        given_preprocessing(None, size_px, None)


def test_prefix_tokens_have_limits():
    assert given_preprocessing(None, None, 0).prefix_tokens == 0
    with pytest.raises(UsageError, match=r"--prefix-tokens is -1\. Set 0 to 65536\."):
        given_preprocessing(None, None, -1)


def test_framings():
    assert said().framing() == Framing(224, 224)
    assert said(interpolation="bicubic").framing() == Framing(224, 224, "bicubic")
    assert said(resize=CROP).framing() == Framing(224, 224, "bilinear", 224)
    assert said(resize=CROP, crop_pct="0.875").framing() == Framing(224, 224, "bilinear", 256)
    # timm rounds down: 224 / 0.9 is 248.9.
    assert said(resize=CROP, crop_pct=0.9).framing().shorter_px == 248


def test_impossible_framings():
    with pytest.raises(UsageError, match=r"The size of the input is not known\. Add --size PX\."):
        given_preprocessing({}, None, None).framing()
    with pytest.raises(UsageError, match="--crop-pct requires --resize shorter-side"):
        said(crop_pct=0.9).framing()


BESIDE = Preprocessing(
    "preprocessor_config.json",
    size_px=224,
    resize=CROP,
    interpolation="bicubic",
    shorter_px=256,
    scale=1 / 255,
    mean=(0.5,),
    std=(0.25,),
    prefix_tokens=5,
)


def test_what_a_person_says_comes_before_a_sidecar():
    over = given_preprocessing({"mean": 0.1, "channels": "bgr"}, None, 1).over(BESIDE)
    assert over.normalisation() == Normalisation(1 / 255, (0.1,) * 3, (0.25,) * 3, "bgr")
    assert over.framing() == Framing(224, 224, "bicubic", 256)
    assert over.prefix_tokens == 1
    # Of zero, too.
    assert given_preprocessing(None, None, 0).over(BESIDE).prefix_tokens == 0


@pytest.mark.parametrize(
    "values, size_px, framing",
    [
        ({"resize": "squash"}, None, Framing(224, 224, "bicubic")),
        ({"crop_pct": 1}, None, Framing(224, 224, "bicubic", 224)),
        ({"crop_pct": 0.5}, None, Framing(224, 224, "bicubic", 448)),
        ({}, 192, Framing(192, 192, "bicubic", 256)),
        ({"interpolation": "box"}, None, Framing(224, 224, "box", 256)),
    ],
)
def test_what_a_person_says_about_the_crop_replaces_that_of_a_sidecar(values, size_px, framing):
    assert given_preprocessing(values, size_px, None).over(BESIDE).framing() == framing


def test_a_size_that_does_not_fit_into_the_resized_side_of_a_sidecar():
    with pytest.raises(UsageError, match="A crop of 300 px does not fit into 256 px"):
        given_preprocessing(None, 300, None).over(BESIDE).framing()
