"""Colours that everybody can tell apart, and text that everybody can read, checked by arithmetic."""

import itertools

import numpy as np
import pytest

from lpr_lab.views import theme

# Machado, Oliveira and Fernandes (2009), severity 1.0, on linear RGB.
SIGHT = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(colour: str, sight: str) -> np.ndarray:
    xyz = TO_XYZ @ np.clip(np.array(SIGHT[sight]) @ linear(colour), 0, 1) / np.array([0.95047, 1, 1.08883])
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast(one: str, other: str) -> float:
    bright, dim = sorted((float(TO_XYZ[1] @ linear(colour)) for colour in (one, other)), reverse=True)
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("sight", SIGHT)
def test_any_two_experts_differ_in_colour_for_every_sight(sight):
    for one, other in itertools.combinations(theme.EXPERT_COLOURS, 2):
        assert np.linalg.norm(lab(one, sight) - lab(other, sight)) >= 15, (one, other)


@pytest.mark.parametrize("sight", SIGHT)
def test_original_and_new_are_far_apart_for_every_sight(sight):
    assert np.linalg.norm(lab(theme.ORIGINAL, sight) - lab(theme.NEW, sight)) >= 70


@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_marks_and_text_stand_out_from_every_ground(colours):
    for mark in theme.EXPERT_COLOURS:
        assert contrast(mark, colours["surface"]) >= 3, mark
    for ground in ("paper", "surface", "sunken"):
        for ink in ("ink", "ink-2", "ink-3", "original-ink", "new-ink", "good", "bad", "warn"):
            assert contrast(colours[ink], colours[ground]) >= 4.5, (ink, ground)
        assert contrast(colours["line-strong"], colours[ground]) >= 2.7, ground


@pytest.mark.parametrize("sight", SIGHT)
@pytest.mark.parametrize("colours", [theme.LIGHT, theme.DARK], ids=["light", "dark"])
def test_good_and_bad_differ_for_every_sight(colours, sight):
    assert np.linalg.norm(lab(colours["good"], sight) - lab(colours["bad"], sight)) >= 20


def test_light_and_dark_name_the_same_colours():
    assert theme.LIGHT.keys() == theme.DARK.keys()
    assert "--lpr-ink:#12151c" in theme.css_colours(":root") and "--lpr-ink:#eceff4" in theme.css_colours(
        ":root", dark=True
    )


def test_experts_beyond_the_palette_share_one_colour():
    assert theme.expert_colour(6) == theme.expert_colour(40) != theme.expert_colour(5)
