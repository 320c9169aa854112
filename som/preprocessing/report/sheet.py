"""The report as one picture, for terminals without a browser and for notes."""

from __future__ import annotations

import textwrap

import cv2
import numpy as np

from som.files import resize_image
from som.preprocessing.report.contents import Picture, Report, Section

WIDTH, MARGIN, GAP, ROW_HEIGHT = 1680, 28, 8, 225
"""Pixels; four pictures of 16:9 fill a row."""
PAPER, INK, SOFT = (250, 250, 252), (28, 32, 39), (93, 102, 117)
GRADES = {"good": (31, 122, 77), "doubtful": (168, 100, 0), "bad": (179, 38, 30)}
MAX_WARNINGS = 8
FONT = cv2.FONT_HERSHEY_SIMPLEX


def render_sheet(report: Report) -> np.ndarray:
    """(H,W,3) uint8 RGB, ``WIDTH`` pixels wide."""
    blocks = [_text(report.title, 0.95, INK, 2), _text(report.verdict, 0.7, GRADES[report.grade], 2)]
    sentences = report.problems + [f"{stage}: {text}" for stage, text in report.warnings]
    blocks += [_text(f"- {sentence}", 0.5, INK, 1) for sentence in sentences[:MAX_WARNINGS]]
    if len(sentences) > MAX_WARNINGS:
        blocks.append(_text(f"and {len(sentences) - MAX_WARNINGS} more, see report.html", 0.5, SOFT, 1))
    blocks += [_text(f"{label}: {text}", 0.5, SOFT, 1) for label, text in report.facts]
    if report.stages:
        stages = [f"{s.name} {s.state} ({s.seconds:.1f} s)" for s in report.stages]
        blocks.append(_text("stages: " + ", ".join(stages), 0.5, SOFT, 1))
    for section in report.sections:
        blocks += _section(section)
    top = np.full((MARGIN, WIDTH, 3), PAPER, np.uint8)
    return np.concatenate([top, *blocks, top])


def _section(section: Section) -> list[np.ndarray]:
    blocks = [_blank(14), _text(section.title, 0.7, INK, 2)]
    if not section.pictures:
        return [*blocks, _text(section.explanation, 0.5, SOFT, 1)]
    row: list[tuple[np.ndarray, str]] = []
    for picture in section.pictures:
        image = _at_height(picture)
        if row and sum(i.shape[1] + GAP for i, _ in row) + image.shape[1] > WIDTH - 2 * MARGIN:
            blocks.append(_row(row))
            row = []
        row.append((image, picture.caption))
    return [*blocks, _row(row)]


def _row(row: list[tuple[np.ndarray, str]]) -> np.ndarray:
    block = _blank(ROW_HEIGHT + 26)
    left = MARGIN
    for image, caption in row:
        block[:ROW_HEIGHT, left : left + image.shape[1]] = image
        room = max(int(image.shape[1] / 7.2), 4)
        _put(block, _ascii(caption)[:room], (left, ROW_HEIGHT + 16), 0.4, SOFT, 1)
        left += image.shape[1] + GAP
    return block


def _at_height(picture: Picture) -> np.ndarray:
    height, width = picture.image.shape[:2]
    size = (ROW_HEIGHT, min(max(round(width * ROW_HEIGHT / height), 1), WIDTH - 2 * MARGIN))
    if height >= ROW_HEIGHT:
        return resize_image(picture.image, size)
    return cv2.resize(picture.image, size[::-1], interpolation=cv2.INTER_LINEAR)


def _text(text: str, scale: float, color: tuple[int, int, int], thickness: int) -> np.ndarray:
    """A block with a text, broken into lines that fit."""
    (width, height), _ = cv2.getTextSize("n" * 40, FONT, scale, thickness)
    lines = textwrap.wrap(_ascii(text), int((WIDTH - 2 * MARGIN) / (width / 40))) or [""]
    step = round(height * 2.1)
    block = _blank(step * len(lines) + 4)
    for i, line in enumerate(lines):
        _put(block, line, (MARGIN, step * (i + 1) - height // 2), scale, color, thickness)
    return block


def _put(block: np.ndarray, text: str, at: tuple[int, int], scale: float, color: tuple, thickness: int) -> None:
    cv2.putText(block, text, at, FONT, scale, color, thickness, cv2.LINE_AA)


def _ascii(text: str) -> str:
    """OpenCV's letters are ASCII."""
    return text.replace("→", "->").encode("ascii", "replace").decode()


def _blank(height: int) -> np.ndarray:
    return np.full((height, WIDTH, 3), PAPER, np.uint8)
