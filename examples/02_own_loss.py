"""A term of your own in the objective: moving Gaussians that are nearly transparent are made to vanish.

    python examples/02_own_loss.py out/own_loss                      # the demo
    python examples/02_own_loss.py out/own_loss --data data/my_video
"""

import argparse

from torch import Tensor

import som
from som.data.config import DemoData
from som.training.context import StepContext
from som.training.trainer import StepReport


def faint_foreground(context: StepContext) -> Tensor:
    """Entropy-like cost of opacities between 0 and 1: smallest where a Gaussian is opaque or gone.

    A term is a function of everything that the step knows and gives a scalar, which is added to the loss as it is:
    ``context.scene`` is the scene (in scene coordinates), ``context.render`` what was drawn (rgb, alpha, depth, ...),
    ``context.batch`` what the video says (images, masks, depths, tracks).
    """
    foreground = context.scene.foreground
    if foreground is None:  # nothing moves in this scene
        return context.render.rgb.new_zeros(())
    opacity = foreground.opacities
    return 0.01 * (opacity * (1 - opacity)).mean()


def show(report: StepReport) -> None:
    """Called every few steps; ``report.values`` has every term of the objective, ours among them."""
    values = report.values
    print(f"step {report.step}: PSNR {values['psnr']:.2f} dB, faint_foreground {values['faint_foreground']:.5f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work_dir")
    parser.add_argument("--data", help="a data set folder; the built-in demo by default")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--preset", default="auto", help="a name in configs/, or a YAML file")
    options = parser.parse_args()

    data = som.load_dataset(options.data or DemoData())
    run = som.train(
        data,
        work_dir=options.work_dir,
        steps=options.steps,
        preset=options.preset,
        extra_losses={"faint_foreground": faint_foreground},
        callback=show,
        overwrite=True,  # own terms are not recorded in the work dir, so a run is not to be resumed by accident
    )
    report = som.evaluate(run.scene, data, lpips="off")
    print(report.headline())


if __name__ == "__main__":
    main()
