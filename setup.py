"""Packaging of mipin_keras. The settings of the tools (ruff, mypy, pytest) are in pyproject.toml."""

import runpy
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
README = HERE / "README.md"

TEST = ["mypy>=1.11", "pandas>=2.2", "pytest-xdist>=3.5", "pytest>=8.2", "scikit-learn>=1.3"]

setup(
    name="mipin-keras",
    version=runpy.run_path(str(HERE / "mipin_keras" / "_version.py"))["__version__"],
    description="MIP-IN, the mutual information preserving inverse network, and the attribution methods around it, "
    "for Keras 3 models",
    long_description=README.read_text(encoding="utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    author="The mipin_keras authors",
    license="MIT",
    license_files=["LICENSE"],
    packages=find_packages(include=["mipin_keras", "mipin_keras.*"]),
    package_data={"mipin_keras": ["py.typed"]},
    zip_safe=False,
    python_requires=">=3.11",
    # The lower bounds are what .ci/run installs for its second run: it reads them from here, so each bound is tested.
    install_requires=[
        "tensorflow>=2.17",
        "keras>=3.5",
        "numpy>=1.26",
        "matplotlib>=3.8",
    ],
    extras_require={
        "test": TEST,
        "dev": [*TEST, "import-linter>=2.17", "ruff>=0.6"],
        # What the real iNNvestigate needs beside it. Its own pins (Python < 3.12, TensorFlow < 2.15, NumPy < 2)
        # are stale and would undo the ones above, so it comes separately:
        # pip install --no-deps --ignore-requires-python innvestigate==2.1.2
        "innvestigate": ["tf-keras>=2.17", "future>=1.0"],
    },
    entry_points={"console_scripts": ["mipin = mipin_keras.cli.main:main"]},
    classifiers=[
        "Development Status :: 3 - Alpha",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "License :: OSI Approved :: MIT License",
        "Operating System :: OS Independent",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3 :: Only",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
    keywords="keras tensorflow attribution explainability saliency mutual-information lrp innvestigate",
)
