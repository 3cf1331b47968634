"""Photographs with boxes: Tiny ImageNet's layout on a small folder, and what is read from it."""

import numpy as np
import pytest
import tensorflow as tf

from mipin_keras.data.batches import Batches
from reproduce_paper.photographs import Photographs, decoded, tiny_imagenet


def write_jpeg(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_jpeg(image, quality=100).numpy())


@pytest.fixture
def folder(tmp_path, rng):
    """Two classes of two training and one validation image each; the WNIDs are not sorted in their file."""
    (tmp_path / "wnids.txt").write_text("n02\nn01\n")
    (tmp_path / "words.txt").write_text("n01\tgoldfish, Carassius auratus\nn02\tkoala, koala bear\nn03\tthing\n")
    for wnid in ("n01", "n02"):
        for i in range(2):
            image = rng.integers(0, 256, (64, 64, 3), np.uint8)
            write_jpeg(tmp_path / f"train/{wnid}/images/{wnid}_{i}.JPEG", image)
        (tmp_path / f"train/{wnid}/{wnid}_boxes.txt").write_text(
            f"{wnid}_0.JPEG\t0\t10\t63\t58\n{wnid}_1.JPEG\t2\t3\t2\t3\n"
        )
    lines = []
    for i, wnid in enumerate(("n02", "n01")):
        write_jpeg(tmp_path / f"val/images/val_{i}.JPEG", np.full((64, 64, 3), 100 * i, np.uint8))
        lines.append(f"val_{i}.JPEG\t{wnid}\t{i}\t0\t31\t31\n")
    (tmp_path / "val/val_annotations.txt").write_text("".join(lines))
    return tmp_path


def photographs(boxes, size=(4, 8)):
    """Photographs that are never read, with these boxes."""
    boxes = [np.array(of, np.int64).reshape(-1, 4) for of in boxes]
    return Photographs([None] * len(boxes), np.arange(len(boxes)), boxes, ["a"], size, decoded)


def test_tiny_imagenet(folder):
    train, test = tiny_imagenet(folder, "train"), tiny_imagenet(folder, "val")
    assert train.names == test.names == ["goldfish", "koala"]
    assert train.labels.tolist() == [0, 0, 1, 1] and train.labels.dtype == np.int64
    assert [path.name for path in train.paths] == ["n01_0.JPEG", "n01_1.JPEG", "n02_0.JPEG", "n02_1.JPEG"]
    assert test.labels.tolist() == [1, 0]
    # The last row and column of a box are in it: rows 10 to 58, columns 0 to 63; the second box is one pixel.
    assert train.boxes[0].tolist() == [[0, 10, 64, 59]] and train.masks()[1].sum() == 1 and train.masks()[1, 3, 2]
    np.testing.assert_allclose(train.shares()[:2], [49 / 64, 1 / 64**2])
    images = test.pixels()
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8
    np.testing.assert_allclose(images.mean(axis=(1, 2, 3)), [0, 100], atol=1)


def test_take_and_evenly(folder):
    train = tiny_imagenet(folder, "train")
    taken = train.take([2, 0])
    assert [path.name for path in taken.paths] == ["n02_0.JPEG", "n01_0.JPEG"] and taken.labels.tolist() == [1, 0]
    np.testing.assert_array_equal(taken.pixels(), train.pixels()[[2, 0]])
    assert train.take(train.labels == 1).labels.tolist() == [1, 1]
    assert train.take([]).pixels().shape == (0, 64, 64, 3) and train.take([]).masks().shape == (0, 64, 64)
    assert train.evenly(2).labels.tolist() == [0, 1] and train.evenly(5) is train


def test_a_stream_is_read_again_on_each_pass(folder):
    train = tiny_imagenet(folder, "train")
    seen = []
    stream = train.stream(lambda pixels: seen.append(pixels.shape) or pixels.astype(np.float32) / 255.0, batch_size=3)
    batches = Batches(stream, (64, 64, 3))
    for _ in range(2):
        np.testing.assert_allclose(np.concatenate(list(batches)), train.pixels() / 255.0, rtol=1e-6)
    assert seen == [(3, 64, 64, 3), (1, 64, 64, 3)] * 2 and (batches.samples, batches.steps) == (4, 2)


def test_masks_are_the_union_of_the_boxes():
    given = photographs([[[0, 0, 2, 2], [1, 1, 4, 3]], [[7, 3, 8, 4]], []])
    expected = np.zeros((3, 4, 8), bool)
    expected[0, 0:2, 0:2] = expected[0, 1:3, 1:4] = expected[1, 3, 7] = True
    np.testing.assert_array_equal(given.masks(), expected)
    np.testing.assert_allclose(given.shares(), [9 / 32, 1 / 32, 0])


def test_small_boxes_cover_something_and_less_than_a_third():
    boxes = [[[0, 0, 33, 1]], [[0, 0, 32, 1]], [], [[0, 0, 20, 1], [15, 0, 34, 1]], [[0, 0, 20, 1], [5, 0, 30, 1]]]
    assert photographs(boxes, (1, 100)).with_small_boxes().labels.tolist() == [1, 4]


def test_grey_photographs_have_three_equal_channels(tmp_path):
    write_jpeg(tmp_path / "grey.JPEG", np.arange(64, dtype=np.uint8).reshape(8, 8, 1))
    image = decoded(tmp_path / "grey.JPEG")
    assert image.shape == (8, 8, 3) and (image == image[..., :1]).all()


def test_refuses(folder):
    with pytest.raises(ValueError, match="'train' or 'val', received 'test'"):
        tiny_imagenet(folder, "test")
    with pytest.raises(FileNotFoundError, match=r"wnids\.txt"):
        tiny_imagenet(folder / "train", "train")
    lines = folder / "val/val_annotations.txt"
    for line in ("val_0.JPEG\tn02\t0\t0\t63", "val_0.JPEG\tn09\t0\t0\t63\t63", "val_0.JPEG\tn02\t0\t0\tx\t63"):
        lines.write_text(line + "\n")
        with pytest.raises(ValueError, match=r"each line of .*val_annotations.txt, received 'val_0"):
            tiny_imagenet(folder, "val")
    (folder / "train/n02/n02_boxes.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r"n02_boxes\.txt"):
        tiny_imagenet(folder, "train")


def test_what_is_no_image_is_named(folder):
    test = tiny_imagenet(folder, "val")
    test.paths[0].write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"val_0\.JPEG"):
        test.pixels()
    test.paths[0].unlink()
    with pytest.raises(ValueError, match=r"val_0\.JPEG"):
        test.pixels()


def test_an_image_of_another_size_is_named(folder):
    write_jpeg(folder / "val/images/val_1.JPEG", np.zeros((1, 1, 3), np.uint8))
    photographs = tiny_imagenet(folder, "val")
    assert photographs.take([0]).pixels().shape == (1, 64, 64, 3)
    with pytest.raises(ValueError, match=r"expected shape \(64, 64, 3\) of .*val_1.JPEG, received \(1, 1, 3\)"):
        photographs.pixels()
