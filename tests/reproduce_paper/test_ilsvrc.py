"""The validation photographs of ILSVRC2012: layouts, classes, boxes that are resized and cropped along."""

import numpy as np
import pytest
import tensorflow as tf

from reproduce_paper import ilsvrc

# The WNID, height, width and boxes (xmin, ymin, xmax, ymax, from 1) of four images.
FILES = {
    1: ("n00000003", 300, 400, [(1, 1, 400, 300)]),
    2: ("n00000001", 512, 256, [(1, 1, 128, 512), (100, 200, 140, 240)]),
    3: ("n00000002", 224, 230, [(101, 51, 110, 60)]),
    5: ("n00000003", 128, 64, [(1, 1, 64, 10)]),
}
WORDS = {"n00000001": "kit fox, Vulpes macrotis", "n00000002": "English setter", "n00000003": "10 pin bowl"}
# ILSVRC's own numbers, of the images 1 to 5, and what they stand for.
TRUTH = [1, 3, 2, 2, 1]
NUMBERS = {"n00000001": 3, "n00000002": 2, "n00000003": 1}


def gradient(number, height, width):
    """An image that is redder to the bottom and greener to the right: uint8 ``(height, width, 3)``."""
    rows, columns = np.mgrid[:height, :width]
    image = np.stack([rows * 255 / height, columns * 255 / width, np.full(rows.shape, 40 * number)], axis=-1)
    return np.rint(image).astype(np.uint8)


def write(root, number, wnid, height, width, boxes, images="", xml=""):
    """One generated photograph, and its XML file as ILSVRC has it."""
    name = f"ILSVRC2012_val_{number:08d}"
    objects = "".join(
        f"<object><name>{wnid}</name><pose>Unspecified</pose><truncated>0</truncated><difficult>0</difficult>"
        f"<bndbox><xmin>{a}</xmin><ymin>{b}</ymin><xmax>{c}</xmax><ymax>{d}</ymax></bndbox></object>"
        for a, b, c, d in boxes
    )
    for folder in (root / images, root / xml):
        folder.mkdir(parents=True, exist_ok=True)
    encoded = tf.io.encode_jpeg(gradient(number, height, width)).numpy()
    (root / images / f"{name}.JPEG").write_bytes(encoded)
    (root / xml / f"{name}.xml").write_text(
        f"<annotation><folder>val</folder><filename>{name}</filename><size><width>{width}</width>"
        f"<height>{height}</height><depth>3</depth></size><segmented>0</segmented>{objects}</annotation>"
    )


def write_training(root, wnid, number, height=300, width=400):
    """One generated training photograph."""
    root.mkdir(parents=True, exist_ok=True)
    encoded = tf.io.encode_jpeg(gradient(number, height, width)).numpy()
    (root / f"{wnid}_{number}.JPEG").write_bytes(encoded)


def write_words(root, words=WORDS):
    (root / "synset_words.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in words.items()))


def write_map(root):
    lines = (f"{wnid} {number} {WORDS[wnid].replace(' ', '_')}\n" for wnid, number in NUMBERS.items())
    (root / "map_clsloc.txt").write_text("".join(lines))


@pytest.fixture
def folder(tmp_path):
    for number, file in FILES.items():
        write(tmp_path, number, *file)
    (tmp_path / ilsvrc.TRUTH).write_text("".join(f"{number}\n" for number in TRUTH))
    return tmp_path


def test_classes_are_sorted_wnids_and_boxes_are_cropped_along(folder):
    write_words(folder)
    found = ilsvrc.validation(folder)
    assert [path.stem[-1] for path in found.paths] == ["1", "2", "3", "5"]
    assert found.labels.tolist() == [2, 0, 1, 2] and found.labels.dtype == np.int64
    assert found.names == ["kit fox", "English setter", "10 pin bowl"] and found.size == (224, 224)
    boxes = [of.tolist() for of in found.boxes]
    # 300x400 becomes 256x341, of which columns 58 to 281 and rows 16 to 239 are kept: all in the box.
    assert boxes[0] == [[0, 0, 224, 224]]
    # 512x256 keeps its size: columns 16 to 239, rows 144 to 367; the box ends behind column 127.
    assert boxes[1] == [[0, 0, 112, 224], [83, 55, 124, 96]]
    # 224x230 becomes 256x263: ten pixels from 100 and 50 are those from 114 and 57 to 126 and 69, then 19 and 16 less.
    assert boxes[2] == [[95, 41, 107, 53]]
    # 128x64 becomes 512x256, and its upper tenth is cut off.
    assert boxes[3] == []
    union = 224 * 112 + (124 - 112) * 41
    np.testing.assert_allclose(found.shares(), [1, union / 224**2, 144 / 224**2, 0])
    assert found.with_small_boxes().labels.tolist() == [1]


def test_images_are_resized_and_their_centre_is_cropped(folder):
    found = ilsvrc.validation(folder)
    sizes, corners = [(256, 341), (512, 256), (256, 263), (512, 256)], [(16, 58), (144, 16), (16, 19), (144, 16)]
    jpeg = found.pixels()
    for path, (number, file) in zip(found.paths, FILES.items(), strict=True):
        # ILSVRC has PNG files under such names too; nothing is lost in them.
        path.write_bytes(tf.io.encode_png(gradient(number, *file[1:3])).numpy())
    png = found.pixels()
    assert jpeg.shape == png.shape == (4, 224, 224, 3) and jpeg.dtype == np.uint8
    assert np.abs(jpeg[..., :2].astype(int) - png[..., :2]).mean() < 3
    for image, file, size, corner in zip(png, FILES.values(), sizes, corners, strict=True):
        for axis in (0, 1):  # the middle of a pixel stays where it is; a pixel is 0.5 to 1 brighter than the one before
            expected = (np.arange(224) + corner[axis] + 0.5) * 255 / size[axis] - 0.5 * 255 / file[1 + axis]
            difference = image[..., axis].mean(axis=1 - axis) - expected
            assert np.abs(difference).max() <= 1.01 and abs(difference.mean()) < 0.1


def test_a_box_follows_its_object(tmp_path):
    image = np.zeros((600, 450, 3), np.uint8)
    image[249:330, 99:210] = 255  # rows 250 to 330 and columns 100 to 210, counted from 1
    write(tmp_path, 1, "n00000001", 600, 450, [(100, 250, 210, 330)])
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(tf.io.encode_jpeg(image, quality=100).numpy())
    found = ilsvrc.validation(tmp_path)
    bright, mask = found.pixels()[0, ..., 0] > 127, found.masks()[0]
    assert mask.sum() > 2000 and (bright != mask).sum() <= 0.02 * mask.sum()


@pytest.mark.parametrize(
    ("images", "xml"),
    [
        ("val", "bbox"),
        ("val", "val"),
        ("val/n00000001", "bbox/val"),
        ("ILSVRC/Data/CLS-LOC/val", "ILSVRC/Annotations/CLS-LOC/val"),
    ],
)
def test_layouts(tmp_path, images, xml):
    for number, file in FILES.items():
        write(tmp_path, number, *file, images=images, xml=xml)
    found = ilsvrc.validation(tmp_path)
    assert found.names == sorted(WORDS)  # no file names them
    assert found.labels.tolist() == [2, 0, 1, 2]


def test_a_part_of_the_classes(folder):
    write_words(folder, WORDS | {"n00000000": "first, of all"})
    found = ilsvrc.validation(folder)
    assert found.names[0] == "first" and found.labels.tolist() == [3, 1, 2, 3]
    write_words(folder, {"n00000001": "kit fox"})
    with pytest.raises(ValueError, match="of the 1 classes in .*ILSVRC2012_val_00000001.JPEG, received n00000003"):
        ilsvrc.validation(folder)


@pytest.mark.parametrize("mapped", [True, False], ids=["map_clsloc.txt", "no map"])
def test_the_ground_truth_must_agree(folder, mapped):
    if mapped:
        write_map(folder)
    agreed = ilsvrc.validation(folder)
    assert agreed.labels.tolist() == [2, 0, 1, 2]
    assert agreed.names == (["kit fox", "English setter", "10 pin bowl"] if mapped else sorted(WORDS))
    (folder / ilsvrc.TRUTH).write_text("1\n3\n1\n2\n1\n")  # image 3 is no class 1
    with pytest.raises(ValueError, match="ILSVRC2012_val_00000003.JPEG to be of class 1, n00000003, .* n00000002"):
        ilsvrc.validation(folder)
    (folder / ilsvrc.TRUTH).write_text("1\n3\n2\n2\n4\n")  # image 5 is of image 1's class
    with pytest.raises(ValueError, match="ILSVRC2012_val_00000005.JPEG to be of class 4, .*n00000003, class 1"):
        ilsvrc.validation(folder)
    for text in ("1\n3\n2\n2\n", "1\n3\n2\n2\nn1\n"):
        (folder / ilsvrc.TRUTH).write_text(text)
        with pytest.raises(ValueError, match="expected the class of ILSVRC2012_val_00000005.JPEG, .* line 5 of"):
            ilsvrc.validation(folder)


def test_what_is_missing_is_said(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"ILSVRC2012_val_\*.JPEG in .*nowhere.* val/, val/n\*/"):
        ilsvrc.validation(tmp_path / "nowhere")
    (folder / "ILSVRC2012_val_00000003.xml").unlink()
    with pytest.raises(FileNotFoundError, match="none for 1, the first ILSVRC2012_val_00000003.xml"):
        ilsvrc.validation(folder)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("<width>230</width>", ""),
        ("<width>230</width>", "<width>0</width>"),
        ("<xmin>101</xmin>", "<xmin>x</xmin>"),
        ("<xmin>101</xmin>", "<xmin>111</xmin>"),
        ("<name>n00000002</name>", ""),
        ("</annotation>", "<object><name>n00000001</name></object></annotation>"),
        ("</annotation>", ""),
    ],
)
def test_an_xml_file_that_is_not_whole_is_named(folder, old, new):
    path = folder / "ILSVRC2012_val_00000003.xml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(ValueError, match="expected .*ILSVRC2012_val_00000003.xml"):
        ilsvrc.validation(folder)


def test_boxes_that_reach_out_of_the_image_are_cut():
    # Zeros are there though pixels are counted from 1, and so may be edges behind the last pixel.
    assert ilsvrc.cropped(np.array([[-1, -1, 300, 300]]), (256, 256)).tolist() == [[0, 0, 224, 224]]


def test_an_image_of_another_size_than_its_xml_says_is_refused(folder):
    found = ilsvrc.validation(folder)
    found.paths[1].write_bytes(found.paths[0].read_bytes())
    with pytest.raises(ValueError, match=r"\(512, 256\) rows and columns of .*00000002.JPEG, .*received \(300, 400\)"):
        found.pixels()


def test_classes_files_are_checked(folder):
    (folder / "synset_words.txt").write_text("kit fox\n")
    with pytest.raises(ValueError, match="lines of a WNID and a name in .*synset_words.txt, received 'kit fox'"):
        ilsvrc.validation(folder)


def test_training_photographs_have_the_classes_of_their_names(folder, tmp_path):
    sample = tmp_path / "sample"
    write_training(sample, "n00000003", 4, 256, 320)
    write_training(sample / "n00000001", "n00000001", 5)  # also sorted into folders
    with pytest.raises(FileNotFoundError, match=r"expected map_clsloc.txt, .* in .*received none"):
        ilsvrc.training(sample, folder)
    write_words(folder)
    found = ilsvrc.training(sample, folder)
    assert found.labels.tolist() == [0, 2] and found.labels.dtype == np.int64
    assert found.names == ilsvrc.validation(folder).names and not found.shares().any()
    pixels = found.pixels()
    assert pixels.shape == (2, 224, 224, 3)
    # 256x320 keeps its size: rows 16 to 239 and columns 48 to 271.
    expected = gradient(4, 256, 320)[16:240, 48:272]
    assert np.abs(pixels[1, ..., :2].astype(int) - expected[..., :2]).mean() < 3
    write_training(sample, "n00000009", 1)
    with pytest.raises(ValueError, match="n00000009_1.JPEG to begin with one of the 3 WNIDs .*received n00000009"):
        ilsvrc.training(sample, folder)
    with pytest.raises(FileNotFoundError, match="files WNID_.*JPEG in .*nowhere"):
        ilsvrc.training(tmp_path / "nowhere", folder)
