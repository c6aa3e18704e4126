"""Frames of images with given class sizes."""

import numpy as np
import pandas as pd
import pytest

SIZES = {"Fruit/Apple/Golden": 9, "Fruit/Apple/Pink": 5, "Fruit/Pear/Conference": 7, "Vegetables/Leek/Leek": 3, "Vegetables/Onion/Red": 1}


def create_frame(sizes: dict[str, int], split: str = "train", shuffle: int = 0) -> pd.DataFrame:
    """Return a catalogue's frame with the given number of images of each class, in random order."""
    labels = np.random.default_rng(shuffle).permutation([label for label, size in sizes.items() for _ in range(size)])
    return pd.DataFrame({"label": labels.tolist(), "split": split})


@pytest.fixture(scope="module")
def images() -> pd.DataFrame:
    """All classes in every split, with the rows of the splits mixed."""
    frames = [create_frame(SIZES, split, seed) for seed, split in enumerate(("train", "val", "test"))]
    return pd.concat(frames).sample(frac=1, random_state=0).reset_index(drop=True)
