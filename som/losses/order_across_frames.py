"""Depth order carried between frames: pairs of surface points that optical flow links from a source to a target frame.

The source is the frame whose prior says which point is farther; the target is the frame in which the *rendered* depth
has to obey. Nothing here knows which of them is earlier: call once per direction with the roles exchanged.
docs/ordinal-depth.md derives the forms.
"""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from som.losses.ordinal import Kind, check_pairs, known_pairs, ordinal_depth
from som.reductions import check_same_shape, weighted_mean

Gate = Literal["agree", "not_contradicted", "none"]
Form = Literal["v1", "v2", "v3"]


def agreeing_signs(
    signs_source: Float[Tensor, "*p"], signs_target: Float[Tensor, "*p"], gate: Gate = "agree"
) -> Float[Tensor, "*p"]:
    """The order that the target frame has to obey, from the orders that both priors give for the same points.

    A genuine change of order (motion, a camera that goes round) shows as two signs that oppose each other, and so does
    an error of either prior. No gate lets those through but ``none``.

    Args:
        signs_source: -1, 0 or 1 of the pair in the source frame's prior, see ``order_signs``.
        signs_target: the same of the linked places in the target frame's prior.
        gate: ``agree`` keeps a sign that both priors give. ``not_contradicted`` keeps the source's sign also where the
            target's prior is tied or unknown, which carries order into its holes, and also into pairs that are just
            changing places. ``none`` keeps the source's sign always.

    Returns:
        -1, 0 (no demand) or 1.

    Raises:
        ValueError: the shapes disagree, or the gate is unknown.
    """
    if signs_source.shape != signs_target.shape:
        shapes = f"{tuple(signs_source.shape)} and {tuple(signs_target.shape)}"
        raise ValueError(f"agreeing_signs: the signs of both frames must have one shape, got {shapes}.")
    if gate == "none":
        return signs_source
    if gate == "agree":
        return signs_source * (signs_source == signs_target)
    if gate == "not_contradicted":
        return signs_source * (signs_source != -signs_target)
    raise ValueError(f'agreeing_signs: gate must be "agree", "not_contradicted" or "none", got {gate!r}.')


def cross_frame_order(
    pred_target_i: Float[Tensor, "*p"],
    pred_target_j: Float[Tensor, "*p"],
    signs_source: Float[Tensor, "*p"],
    signs_target: Float[Tensor, "*p"],
    weights: Shaped[Tensor, "*p"] | None = None,
    gate: Gate = "agree",
    kind: Kind = "hinge",
    margin: float | Tensor = 0.02,
    temperature: float = 0.02,
    sharpness: float = 20.0,
) -> Float[Tensor, ""]:
    """The order known in the source frame, required of the rendered depth in the target frame.

    ``mean_w relu(margin - s log(z_i / z_j))``, s from ``agreeing_signs``: the founding note's hinge with a margin in
    place of a tolerance, on rendered depth and scale-free. The two depths may come from either of

    - the depth rendered *in the target frame* at the places to which flow leads from the pair;
    - the depth, in the target camera, of the surface that is seen at the pair *in the source frame* and carried to the
      target's time by the scene's motion; this form is the one that teaches motion, and needs no render of the target.

    Args:
        pred_target_i, pred_target_j: these z-depths in scene units; <= 0 = nothing hit or behind the camera, ignored.
        signs_source: order in the source frame's prior at the pair: +1 where i is farther, -1 where j is, 0 unknown.
        signs_target: order in the target frame's prior at the linked places.
        weights: reliability of the links of both points (visible in both frames, confident), >= 0 or bool.
        gate: see ``agreeing_signs``.
        kind, margin, temperature, sharpness: as for ``ordinal_depth``.

    Returns:
        scalar >= 0; a differentiable 0 when nothing counts.

    Raises:
        ValueError: the shapes disagree, or the gate or kind is unknown.
    """
    check_same_shape("cross_frame_order", pred_target_i=pred_target_i, pred_target_j=pred_target_j)
    signs = agreeing_signs(signs_source, signs_target, gate)
    return ordinal_depth(pred_target_i, pred_target_j, signs, weights, kind, margin, temperature, sharpness)


def note_order(
    pred_i: Float[Tensor, "*p"],
    pred_j: Float[Tensor, "*p"],
    signs: Float[Tensor, "*p"],
    weights: Shaped[Tensor, "*p"] | None = None,
    form: Form = "v2",
    tolerance: float = 0.05,
) -> Float[Tensor, ""]:
    """The three order losses as the project's founding note writes them, for comparison only.

    With ``d = pred_i - pred_j`` and s the sign, per pair:

    - ``v1``: ``|min(0, e + s d)|``, *summed* over pairs, so its size grows with their number;
    - ``v2``: the same without the sum, read as the mean over pairs;
    - ``v3``: ``|min(0, e + s sign(d))|``, the mean over pairs: ``1 - e`` for each pair in the wrong order. Its gradient
      is zero everywhere, so it teaches nothing; it is the discordance rate times ``1 - e``. As written it compares
      render and prior of a single frame.

    In v1 and v2, e is a *tolerance*: the cost is ``relu(-s d - e)``, nothing until the order is wrong by more than e.
    A margin that right orders must keep, which was meant, is ``relu(e - s d)``. Both are in scene units, so they mean
    different things near and far and in scenes of other scale. The note writes the depth D of the prior for d; only on
    rendered depth is there a gradient.

    Args:
        pred_i, pred_j: rendered z-depths in scene units, for v1 and v2 at the linked places in the target frame, for
            v3 at the pair itself; <= 0 = nothing hit, ignored.
        signs: -1, 0 or 1; the note's plain sign is ``order_signs(..., min_ratio=0)``.
        weights: the same shape, >= 0 or bool.
        form: which of the three.
        tolerance: e >= 0, in scene units for v1 and v2.

    Returns:
        scalar >= 0; a differentiable 0 when nothing counts.

    Raises:
        ValueError: the shapes disagree, or the form is unknown.
    """
    check_same_shape("note_order", pred_i=pred_i, pred_j=pred_j)
    check_pairs("note_order", pred_i, signs=signs, weights=weights)
    if form not in ("v1", "v2", "v3"):
        raise ValueError(f'note_order: form must be "v1", "v2" or "v3", got {form!r}.')
    counted = known_pairs(pred_i, pred_j, signs, weights)
    difference = torch.where(counted > 0, pred_i - pred_j, torch.zeros_like(pred_i))
    if form == "v3":
        difference = difference.sign()
    cost = (tolerance + signs * difference).clamp(max=0).abs()
    return (cost * counted).sum() if form == "v1" else weighted_mean(cost, counted)
