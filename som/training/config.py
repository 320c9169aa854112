"""Settings of the optimisation. Everything that is a *when* is a fraction of the run, so it holds for any length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from som.training.density import AdaptiveDensity


@dataclass
class LossWeights:
    """Weight of every term of the objective; a term with weight 0 is not computed."""

    rgb: float = 1.0
    """Photometric loss, 0.8 L1 + 0.2 (1 - SSIM) on valid pixels."""
    alpha: float = 1.0
    """Squared deviation of the accumulated opacity from 1 (from the foreground mask in a scene without background)."""
    mask: float = 1.0
    """Trimmed L1 between the rendered foreground and the foreground mask."""
    depth: float = 3.0
    """Trimmed L1 of disparity against the depth prior."""
    depth_gradient: float = 6.0
    """Trimmed L1 of the forward differences of disparity."""
    pearson: float = 0.05
    """1 - correlation of rendered and prior disparity over each image; blind to the prior's scale and shift."""
    pearson_patch: float = 0.03
    """The same over local boxes."""
    ordinal: float = 1.0
    """Order of depth of pixel pairs inside an image."""
    order_across_frames: float = 0.5
    """Order of depth, known from the prior of one frame, of the pairs that optical flow links to another frame."""
    track_2d: float = 2.0
    """Reprojection error of rendered tracks at other times, in units of the longer image side."""
    track_depth: float = 0.1
    """Disparity of rendered tracks at other times against the depth prior there."""
    smooth_bases: float = 0.005
    """Acceleration of the motion bases (rotations and twice the translations)."""
    smooth_tracks: float = 0.1
    """Acceleration of the foreground Gaussians around the rendered times."""
    smooth_along_ray: float = 1.0
    """Acceleration of the foreground Gaussians along the viewing ray, the direction that one view cannot see."""
    scale_variance: float = 0.01
    """Variance of the three log-scales of each Gaussian: discourages needles."""
    rigidity: float = 0.0
    """Change of the distances between neighbouring foreground Gaussians from one time to another."""


@dataclass
class DepthOrderConfig:
    """How depth is supervised by order and correlation (the terms pearson, pearson_patch, ordinal and
    order_across_frames)."""

    kind: Literal["hinge", "logistic", "tanh"] = "hinge"
    """Cost of a pair's order, see docs/ordinal-depth.md."""
    pairs: int = 4096
    """Pixel pairs per view and step inside an image, half of them near each other."""
    min_difference: float = 0.1
    """A pair counts where the prior's disparities differ by more than this share of their spread in the image."""
    margin: float = 0.02
    """Hinge and logistic: the log ratio of depths by which an order should hold, or a twentieth of the spread of log
    depth in the image, if that is less."""
    temperature: float = 0.02
    """Logistic: width of the rounded corner, in log ratio."""
    sharpness: float = 20.0
    """tanh: factor on the log ratio."""
    near_share: float = 0.5
    """Share of the in-image pairs that lie near each other."""
    near_radius: float = 0.05
    """How near, as a share of the longer image side."""
    linked_pairs: int = 2048
    """Pairs per view and step that flow links to another frame."""
    gate: Literal["agree", "not_contradicted", "none"] = "agree"
    """Which orders are carried to another frame: those on which both priors agree; those that the other prior does not
    contradict; all. The first two leave genuine changes of order alone."""
    start: float = 0.1
    """Fraction of the run until which these four terms weigh nothing ..."""
    full: float = 0.2
    """... and after which they have their full weight, with a linear ramp in between."""


@dataclass
class LearningRates:
    """Initial Adam learning rates, in scene units (the scene is normalised to about unit size)."""

    means: float = 1.6e-4
    """Centres."""
    quats: float = 1e-3
    """Orientations."""
    scales: float = 5e-3
    """Logarithms of the standard deviations."""
    opacities: float = 1e-2
    """Opacity logits of the foreground."""
    background_opacities: float = 5e-2
    """Opacity logits of the background."""
    colors: float = 1e-2
    """Colour logits."""
    motion_coefs: float = 1e-2
    """Logits of the motion weights."""
    rots: float = 1.6e-4
    """6D rotations of the motion bases."""
    transls: float = 1.6e-4
    """Translations of the motion bases."""
    final_factor: float = 0.1
    """All rates decay exponentially to this part of their initial value at the end of the run."""


@dataclass
class TrainingConfig:
    """The optimisation loop."""

    steps: int | None = None
    """Optimisation steps; by default 500 for every 8 frames (rounded up)."""
    batch_size: int = 4
    """Views rendered and optimised together in one step."""
    track_targets: int = 4
    """Other times at which the tracks of a view are rendered and compared."""
    tracks_per_view: int = 4096
    """Tracks sampled per view and step."""
    rasterize_mode: Literal["classic", "antialiased"] = "classic"
    """``classic`` or ``antialiased``; rendering uses the same mode."""
    log_every: int = 20
    """Steps between two reports of losses (averages over the interval)."""
    checkpoint_every: int = 500
    """Steps between two checkpoints; one is also written at the end and on interruption."""
    keep_checkpoints: int | None = None
    """How many of these stay in the work dir, the newest; by default all."""
    validations: int = 4
    """How often the held-out views are rendered and scored during the run (0: never)."""
    losses: LossWeights = field(default_factory=LossWeights)
    """Weights of the objective's terms."""
    depth_order: DepthOrderConfig = field(default_factory=DepthOrderConfig)
    """Supervision of depth by order and correlation."""
    learning_rates: LearningRates = field(default_factory=LearningRates)
    """Learning rates."""
    density: AdaptiveDensity = field(default_factory=AdaptiveDensity)
    """How Gaussians multiply and disappear."""
