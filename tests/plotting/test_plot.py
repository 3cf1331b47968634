"""What is on the pictures, pixel by pixel; and what is refused."""

import importlib.util
import os
import sys

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from mipin_keras.plotting import colormaps, plot
from mipin_keras.plotting.colormaps import colormap

WHITE = (255, 255, 255)
SIGNED = [name for name, entry in plot.COLORMAPS.items() if entry.signed]
UNSIGNED = [name for name, entry in plot.COLORMAPS.items() if not entry.signed]


def rendered(ax):
    """The drawn colour in the middle of each pixel of an Axes' picture: (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(ax.figure)
    canvas.draw()
    buffer = np.asarray(canvas.buffer_rgba())
    height, width = ax.images[0].get_array().shape[:2]
    centres = np.stack(np.meshgrid(np.arange(width), np.arange(height)), axis=-1).reshape(-1, 2)
    columns, rows = np.floor(ax.transData.transform(centres)).astype(int).T
    return buffer[len(buffer) - 1 - rows, columns, :3].reshape(height, width, 3)


# ------------------------------------------------------------------ heatmap


@pytest.mark.parametrize("cmap", SIGNED)
@pytest.mark.parametrize("size", [1.0, 1e-30, 1e30])
def test_zero_is_white_and_the_sides_are_the_ends_of_the_map(cmap, size):
    drawn = rendered(plot.heatmap(size * np.array([[-1.0, 0.0, 0.5], [0.0, 1.0, 0.0]]), cmap=cmap))
    assert all(tuple(drawn[where]) == WHITE for where in [(0, 1), (1, 0), (1, 2)])
    for where, share in {(0, 0): 0.0, (1, 1): 1.0, (0, 2): 0.75}.items():
        assert drawn[where] == pytest.approx(np.array(colormap(cmap)(share)[:3]) * 255, abs=1)


def test_positive_is_red_and_negative_blue():
    drawn = rendered(plot.heatmap([[-1.0, 1.0]])).astype(int)
    assert drawn[0, 0, 2] > drawn[0, 0, 0] and drawn[0, 1, 0] > drawn[0, 1, 2]


@pytest.mark.parametrize("values", [[[0.0, 3.0]], [[-3.0, 1.0]], [[-3.0, -1.0]]])
def test_the_scale_is_symmetric_whatever_the_signs(values):
    assert plot.heatmap(values).images[0].get_clim() == (-3.0, 3.0)


def test_vmax_sets_the_scale_and_larger_values_get_its_colour():
    ax = plot.heatmap([[2.0, 8.0, 0.0]], vmax=2.0)
    assert ax.images[0].get_clim() == (-2.0, 2.0)
    drawn = rendered(ax)
    assert tuple(drawn[0, 0]) == tuple(drawn[0, 1]) and tuple(drawn[0, 2]) == WHITE


@pytest.mark.parametrize("cmap", [*SIGNED, "Greys"])
def test_an_all_zero_map_is_white(cmap):
    assert (rendered(plot.heatmap(np.zeros((4, 5)), cmap=cmap)) == 255).all()


@pytest.mark.parametrize("cmap", UNSIGNED)
def test_an_unsigned_scale_starts_at_zero_and_refuses_negatives(cmap):
    assert plot.heatmap([[1.0, 3.0]], cmap=cmap).images[0].get_clim() == (0.0, 3.0)
    with pytest.raises(ValueError, match="from 0 up .*, received -2"):
        plot.heatmap([[1.0, -2.0]], cmap=cmap)


def test_channels_are_summed():
    rng = np.random.default_rng(0)
    rgb = rng.normal(size=(5, 4, 3)).astype(np.float32)
    drawn = plot.heatmap(rgb).images[0].get_array()
    np.testing.assert_allclose(drawn, rgb.astype(np.float64).sum(-1))
    np.testing.assert_array_equal(plot.heatmap(rgb[..., :1]).images[0].get_array(), rgb[..., 0])


def test_channels_that_cancel_are_white():
    assert tuple(rendered(plot.heatmap([[[1.0, -1.0], [1.0, 0.0]]]))[0, 0]) == WHITE


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8, np.uint8, bool])
def test_dtypes(dtype):
    assert plot.heatmap(np.array([[0, 1], [1, 0]], dtype)).images[0].get_clim() == (-1.0, 1.0)


def test_the_given_axes_are_drawn_on():
    figure = Figure()
    axes = figure.subplots(1, 2)
    assert plot.heatmap(np.ones((2, 2)), axes[1], title="here") is axes[1]
    assert not axes[0].images and axes[1].get_title() == "here"


BAD_MAPS = [
    (np.array([[np.nan, 1.0]]), "to be finite, received NaN or infinity in 1 of 2 values, the first at index 0"),
    (np.array([[[np.inf, -np.inf]]]), "to be finite, received NaN or infinity in 2 of 2 values"),
    (np.ones(4), r"received shape \(4,\)"),
    (np.ones((1, 2, 2, 1)), r"received shape \(1, 2, 2, 1\)"),
    (np.ones((0, 3)), "not empty"),
    (np.array([["a"]]), "real numbers, received dtype <U1"),
    (np.array([[1j]]), "real numbers, received dtype complex128"),
]


@pytest.mark.parametrize(("bad", "message"), BAD_MAPS)
def test_what_is_no_map_is_refused(bad, message):
    with pytest.raises(ValueError, match=message):
        plot.heatmap(bad)
    with pytest.raises(ValueError, match=message):
        plot.image(bad)
    with pytest.raises(ValueError, match=message):
        plot.overlay(np.ones((2, 2)), bad)
    with pytest.raises(ValueError, match="row 'b', column 1: .*" + message):
        plot.grid({"a": [np.ones((2, 2))] * 2, "b": [np.ones((2, 2)), bad]})


@pytest.mark.parametrize("vmax", [0.0, -1.0, np.nan, np.inf, True, "1"])
def test_a_scale_that_is_none_is_refused(vmax):
    with pytest.raises(ValueError, match=f"vmax to be a finite number greater than 0, received {vmax!r}"):
        plot.heatmap([[1.0]], vmax=vmax)


def test_an_unknown_colour_map_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="received 'jet'; take one of these: 'seismic'.*'PuOr_r'"):
        plot.heatmap([[1.0]], cmap="jet")


def test_some_signed_and_unsigned_maps_are_for_the_colour_blind():
    assert {entry.signed for entry in plot.COLORMAPS.values() if entry.colorblind} == {True, False}


# ------------------------------------------------------------------ overlay, image


def test_overlay_shows_the_image_where_the_attribution_is_zero():
    image = np.array([[0.0, 1.0, 0.5]])
    drawn = rendered(plot.overlay(image, np.array([[0.0, 0.0, 2.0]]), alpha=1.0))
    assert tuple(drawn[0, 0]) == (153, 153, 153) and tuple(drawn[0, 1]) == WHITE
    assert drawn[0, 2] == pytest.approx(np.array(colormap("seismic")(1.0)[:3]) * 255, abs=1)


def test_overlay_is_more_opaque_where_the_attribution_is_stronger():
    ax = plot.overlay(np.zeros((1, 3, 3), np.uint8), np.array([[0.0, -1.0, 2.0]]), alpha=0.8)
    assert np.asarray(ax.images[1].get_array())[0, :, 3] == pytest.approx([0.0, 0.4, 0.8])


def test_overlay_with_an_all_zero_map_is_the_image():
    grey = rendered(plot.overlay(np.full((2, 2), 0.25), np.zeros((2, 2))))
    assert grey.astype(float) == pytest.approx(np.full((2, 2, 3), 255 * 0.7), abs=1)


def test_overlay_with_an_unsigned_map():
    ax = plot.overlay(np.zeros((1, 2)), np.array([[0.0, 1.0]]), cmap="Greys", alpha=1.0)
    assert tuple(rendered(ax)[0, 1]) == (0, 0, 0)


def test_overlay_refuses_a_mismatch():
    with pytest.raises(ValueError, match=r"received \(4, 4\) and \(2, 2\); resize"):
        plot.overlay(np.ones((4, 4)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="alpha to be at most 1, received 1.5"):
        plot.overlay(np.ones((2, 2)), np.ones((2, 2)), alpha=1.5)
    with pytest.raises(ValueError, match="alpha to be a finite number greater than 0, received 0"):
        plot.overlay(np.ones((2, 2)), np.ones((2, 2)), alpha=0)


def test_numpys_numbers_are_numbers(tmp_path):
    drawn = plot.overlay(np.ones((2, 2)), np.eye(2), vmax=np.float32(2), alpha=np.float64(0.5)).images[1].get_array()
    assert np.asarray(drawn)[0, 0, 3] == pytest.approx(0.25)
    figure = plot.grid({"a": np.ones((1, 2, 2))}, cell=np.int64(2))
    assert figure.get_size_inches()[0] == 4 and plot.save(figure, tmp_path / "map.png", dpi=np.int32(20)).exists()


@pytest.mark.parametrize(
    ("picture", "limits", "expected"),
    [
        (np.array([[0, 51, 255]], np.uint8), None, [0.0, 0.2, 1.0]),
        (np.array([[0.0, 0.2, 0.4]]), None, [0.0, 0.2, 0.4]),
        (np.array([[-1.0, 0.0, 3.0]]), None, [0.0, 0.25, 1.0]),
        (np.array([[-1.0, 0.0, 3.0]]), (0.0, 2.0), [0.0, 0.0, 1.0]),
        (np.array([[False, True]]), None, [0.0, 1.0]),
        (np.array([[7.0, 7.0]]), None, [0.5, 0.5]),
    ],
)
def test_image_ranges(picture, limits, expected):
    drawn = plot.image(picture, limits=limits).images[0]
    assert np.asarray(drawn.get_array())[0] == pytest.approx(expected)
    assert drawn.get_clim() == (0.0, 1.0)


def test_image_in_colour():
    drawn = rendered(plot.image(np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)))
    assert drawn.tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert plot.image(np.ones((2, 2, 1))).images[0].get_array().shape == (2, 2)


@pytest.mark.parametrize("channels", [2, 4])
def test_image_refuses_other_channels(channels):
    with pytest.raises(ValueError, match="1 or 3 channels"):
        plot.image(np.ones((2, 2, channels)))


@pytest.mark.parametrize("channels", [2, 4, 13])
def test_other_channels_are_refused_with_what_to_give(channels):
    many = np.ones((1, 2, 2, channels))
    refused = rf"received shape \(2, 2, {channels}\); say which .* bands=\(3, 2, 1\)"
    with pytest.raises(ValueError, match=refused):
        plot.image(many[0])
    with pytest.raises(ValueError, match=refused):
        plot.overlay(many[0], many[0])
    with pytest.raises(ValueError, match="row 'input', column 0: .*" + refused):
        plot.grid({"a": many}, many)


BANDS = [(3, 2, 1), [12, 0, 0], np.array([5, 6, 7]), (4,), 4, np.int64(4)]


@pytest.mark.parametrize("bands", BANDS)
def test_bands_are_drawn_as_red_green_and_blue_or_grey(bands):
    rng = np.random.default_rng(0)
    x, maps = 4000 * rng.random((2, 5, 6, 13)), rng.normal(size=(2, 5, 6, 13))
    wanted = x[..., bands]
    wanted = [(one - one.min()) / (one.max() - one.min()) for one in wanted]  # by what is drawn, not all 13
    wanted = [one[..., 0] if one.shape[-1:] == (1,) else one for one in wanted]
    drawn = plot.image(x[0], bands=bands).images[0].get_array()
    np.testing.assert_allclose(drawn, wanted[0])
    figure = plot.grid({"a": maps, "source": x / 2}, images=x, pictures=["source"], bands=bands)
    table = np.array(figure.axes).reshape(3, 2)
    for column in range(2):
        shown = [ax.images[0].get_array() for ax in table[:, column]]
        np.testing.assert_allclose(shown[0], wanted[column])
        np.testing.assert_allclose(shown[1], maps[column].sum(axis=-1))
        np.testing.assert_allclose(shown[2], wanted[column])
    grey, colors = plot.overlay(x[0], maps[0], bands=bands).images
    luma = wanted[0] if wanted[0].ndim == 2 else wanted[0] @ [0.299, 0.587, 0.114]
    np.testing.assert_allclose(grey.get_array(), 0.6 + 0.4 * luma)
    strength = np.abs(maps[0].sum(axis=-1))
    np.testing.assert_allclose(colors.get_array()[..., 3], 0.9 * strength / strength.max())


def test_bands_reorder_colours_and_keep_the_scale_of_bytes():
    bgr = np.array([[[255, 51, 0]]], np.uint8)
    np.testing.assert_allclose(plot.image(bgr, bands=(2, 1, 0)).images[0].get_array(), [[[0.0, 0.2, 1.0]]])
    np.testing.assert_allclose(plot.image(bgr, limits=(0, 102), bands=1).images[0].get_array(), [[0.5]])


@pytest.mark.parametrize(
    ("bands", "message"),
    [
        ((0, 1), r"three channels, .* or one, for grey, received \(0, 1\)"),
        ((), r"received \(\)"),
        ("321", "received '321'"),
        (True, "received True"),
        (1.0, "received 1.0"),
        ((0, 1, 4), "each of bands to be an int from 0 to 3, received 4"),
        ((-1, 0, 1), "each of bands to be an int from 0 to 3, received -1"),
        ((0.0, 1.0, 2.0), "each of bands to be an int"),
    ],
)
def test_bands_that_are_none_are_refused(bands, message):
    with pytest.raises(ValueError, match=message):
        plot.image(np.ones((2, 2, 4)), bands=bands)
    with pytest.raises(ValueError, match="row 'input', column 0: .*" + message):
        plot.grid({"a": np.ones((1, 2, 2))}, np.ones((1, 2, 2, 4)), bands=bands)


def test_bands_of_an_image_without_channels_are_refused():
    with pytest.raises(ValueError, match=r"received shape \(2, 2\); leave bands out"):
        plot.image(np.ones((2, 2)), bands=0)


@pytest.mark.parametrize("limits", [(1.0, 1.0), (2.0, 1.0), (0.0, np.nan)])
def test_image_refuses_limits_that_are_none(limits):
    with pytest.raises(ValueError, match="two finite numbers, the first smaller"):
        plot.image(np.ones((2, 2)), limits=limits)


# ------------------------------------------------------------------ grid


def test_grid_has_methods_as_rows_under_the_inputs():
    maps = np.arange(-6.0, 6.0).reshape(3, 2, 2)
    figure = plot.grid(
        {"gradient": maps, "source signal": maps},
        images=np.ones((3, 2, 2, 1)),
        titles=["one", "two", "three"],
        captions={"input": ["4.0", "5.0", "6.0"]},
        pictures=["source signal"],
    )
    table = np.array(figure.axes).reshape(3, 3)
    assert [ax.get_ylabel() for ax in table[:, 0]] == ["input", "gradient", "source signal"]
    assert [ax.get_title() for ax in table[0]] == ["one", "two", "three"]
    assert [ax.get_xlabel() for ax in table[0]] == ["4.0", "5.0", "6.0"]
    assert table[1, 2].images[0].get_clim() == (-5.0, 5.0)
    assert table[2, 2].images[0].get_clim() == (0.0, 1.0)
    np.testing.assert_array_equal(table[1, 2].images[0].get_array(), maps[2])


def test_grid_scales_each_map_or_each_row():
    maps = {"a": np.array([[[1.0]], [[-4.0]]]), "b": np.array([[[0.0]], [[0.0]]])}
    tops = {s: [ax.images[0].get_clim()[1] for ax in plot.grid(maps, scaling=s).axes] for s in ("map", "row")}
    assert tops == {"map": [1.0, 4.0, 1.0, 1.0], "row": [4.0, 4.0, 1.0, 1.0]}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rows": {}}, "at least one method and one sample"),
        ({"rows": {"a": []}}, "at least one method and one sample"),
        ({"rows": {"a": np.ones((2, 3, 3)), "b": np.ones((1, 3, 3))}}, "2 in row 'a' and 1 in row 'b'"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "images": np.ones((3, 3, 3))}, "3 in row 'input' and 2 in row 'a'"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "titles": ["one"]}, "1 in titles"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "captions": {"a": ["one"]}}, "1 in captions of 'a'"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "captions": {"b": ["1", "2"]}}, r"name rows \(a\), received 'b'"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "pictures": ["input"]}, r"name rows \(a\), received 'input'"),
        ({"rows": {"input": np.ones((2, 3, 3))}, "images": np.ones((2, 3, 3))}, "another name"),
        (
            {"rows": {"a": np.ones((2, 3, 3))}, "scaling": "all"},
            r"scaling to be one of \('map', 'row'\), received 'all'",
        ),
        ({"rows": {"a": np.ones((2, 3, 3))}, "cell": 0}, "cell to be a finite number greater than 0, received 0"),
        ({"rows": {"a": np.ones((2, 3, 3))}, "cmap": "jet"}, "received 'jet'"),
    ],
)
def test_grid_refuses_what_does_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        plot.grid(**arguments)


# ------------------------------------------------------------------ save


def test_save_writes_a_png_and_returns_its_path(tmp_path):
    path = plot.save(plot.heatmap(np.eye(3)), tmp_path / "new" / "map.png")
    assert path.read_bytes().startswith(b"\x89PNG\r\n") and path.read_bytes().endswith(b"IEND\xaeB`\x82")
    assert os.listdir(path.parent) == ["map.png"]
    assert plot.save(plot.grid({"a": np.ones((1, 2, 2))}), str(path)) == path


def test_an_interrupted_save_keeps_the_earlier_picture(tmp_path):
    path = tmp_path / "map.png"
    path.write_bytes(b"earlier")

    class Interrupted:
        def savefig(self, file, **options):
            file.write(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        plot.save(Interrupted(), path)
    assert path.read_bytes() == b"earlier" and os.listdir(tmp_path) == ["map.png"]


def test_a_saved_file_has_ordinary_permissions(tmp_path):
    (tmp_path / "plain").touch()
    path = plot.save(plot.heatmap(np.eye(3)), tmp_path / "map.png")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("dpi", [0, -1.0, True, "150", np.inf])
def test_save_refuses_a_resolution_that_is_none(dpi, tmp_path):
    with pytest.raises(ValueError, match=f"dpi to be a finite number greater than 0, received {dpi!r}"):
        plot.save(plot.heatmap(np.eye(3)), tmp_path / "map.png", dpi=dpi)
    assert not os.listdir(tmp_path)


def test_save_refuses_another_ending(tmp_path):
    with pytest.raises(ValueError, match="ends in '.png'"):
        plot.save(plot.heatmap(np.eye(3)), tmp_path / "map.jpg")
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("module", [plot, colormaps])
def test_matplotlib_is_not_needed_to_import(module, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    spec = importlib.util.find_spec(module.__name__)
    fresh = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fresh)
    assert set(fresh.COLORMAPS) == set(plot.COLORMAPS)


def test_pyplot_is_never_used(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    plot.save(plot.heatmap([[1.0]]), tmp_path / "map.png")
    plot.grid({"a": np.ones((1, 2, 2))}, images=np.ones((1, 2, 2)))
