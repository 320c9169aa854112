import pytest
import torch

from som.training.adaptive_density import accumulate, refine
from som.training.config import LearningRates
from som.training.density import AdaptiveDensity
from som.training.optimizers import make_optimizers


class Controller:
    """A scene in a run of 100 steps."""

    def __init__(self, scene, optimizers, config):
        self.scene, self.optimizers, self.config = scene, optimizers, config
        self.state = config.initialize_state(scene)
        self.statistics = {part: values for part, values in self.state.items() if isinstance(values, dict)}

    def step(self, step):
        return refine(self.config, self.scene, self.optimizers, self.state, step, 100)


def controller(scene, **changes):
    options = dict(start=0.0, end=1.0, every=10)
    optimizers = make_optimizers(scene, LearningRates())
    for group in optimizers.values():  # give Adam moments that can be distinguished
        for optimizer in group.values():
            param = optimizer.param_groups[0]["params"][0]
            param.grad = torch.randn_like(param)
            optimizer.step()
            optimizer.zero_grad()
    return Controller(scene, optimizers, AdaptiveDensity(**{**options, **changes}))


def assert_consistent(control):
    for part in control.statistics:
        gaussians = getattr(control.scene, part)
        assert {len(p) for p in gaussians.params.values()} == {len(gaussians)}
        assert len(control.state[part]["gradient"]) == len(gaussians)
        for name, optimizer in control.optimizers[part].items():
            assert optimizer.param_groups[0]["params"][0] is gaussians.params[name]
            assert optimizer.state[gaussians.params[name]]["exp_avg"].shape == gaussians.params[name].shape


def test_statistics_by_hand():
    s = {name: torch.zeros(3) for name in ("gradient", "count", "radius")}
    gradients = torch.tensor([[[0.3, 0.4], [9, 9], [0, 0]], [[0, 0.1], [9, 9], [1, 0]]])
    radii = torch.tensor([[[4, 2], [0, 0], [5, 5]], [[8, 1], [0, 3], [0, 0]]], dtype=torch.int32)
    accumulate(s, gradients, radii, width=20, height=10)
    # batch of 2: x times 2 * 20 / 2, y times 2 * 10 / 2; a Gaussian with a zero radius is not visible
    first = ((0.3 * 20) ** 2 + (0.4 * 10) ** 2) ** 0.5 + 0.1 * 10
    torch.testing.assert_close(s["gradient"], torch.tensor([first, 0, 0]))
    assert s["count"].tolist() == [2, 0, 1]
    torch.testing.assert_close(s["radius"], torch.tensor([8 / 20, 0, 5 / 20]))


def test_quiet_scene_is_left_alone(scene):
    control = controller(scene)
    report = control.step(10)
    assert vars(report["foreground"]) == {"duplicated": 0, "split": 0, "removed": 0}
    assert (scene.num_foreground, scene.num_background) == (30, 80)
    assert control.step(11) == {}


def test_small_are_duplicated_large_are_split(scene):
    control = controller(scene)
    with torch.no_grad():
        scene.foreground.params["scales"][:] = torch.tensor(0.05).log()
        scene.foreground.params["scales"][0] = torch.tensor(0.001).log()
    control.statistics["foreground"]["gradient"][:2] = 1.0
    control.statistics["foreground"]["count"][:2] = 2
    parent, opacity = scene.foreground.means[1].detach().clone(), scene.foreground.opacities[1].item()
    report = control.step(10)["foreground"]
    assert (report.duplicated, report.split, report.removed) == (1, 1, 0)
    assert scene.num_foreground == 32
    children = scene.foreground.params["scales"][-2:].exp()
    torch.testing.assert_close(children, torch.full((2, 3), 0.05 / 1.6))
    offsets = (scene.foreground.means[-2:] - parent).norm(dim=-1)
    assert (offsets > 0).all() and offsets[0] != offsets[1], "children must not coincide"
    # opacity corrected so that the two children cover what the parent covered
    assert (1 - scene.foreground.opacities[-1].item()) ** 2 == pytest.approx(1 - opacity, abs=1e-4)
    assert_consistent(control)


def test_large_on_screen_is_split_even_if_small_in_space(scene):
    with torch.no_grad():
        scene.background.params["scales"][:] = torch.tensor(0.001).log()
    control = controller(scene, split_radius=0.05)
    statistics = control.statistics["background"]
    statistics["gradient"][:2], statistics["count"][:2] = 1.0, 1
    statistics["radius"][0] = 0.06
    report = control.step(10)["background"]
    assert (report.split, report.duplicated) == (1, 1)


def test_transparent_huge_and_screen_filling_are_removed(scene):
    with torch.no_grad():
        scene.foreground.params["opacities"][0] = -6
        scene.foreground.params["scales"][1] = torch.tensor(0.9).log()
    control = controller(scene, cull_radius=0.4)
    control.statistics["foreground"]["radius"][2] = 0.5
    kept = scene.foreground.means[3:].detach().clone()
    assert control.step(10)["foreground"].removed == 3
    torch.testing.assert_close(scene.foreground.means.detach(), kept)
    assert_consistent(control)


def test_a_part_is_never_emptied(scene):
    with torch.no_grad():
        scene.foreground.params["opacities"][:] = -9
    control = controller(scene)
    control.step(10)
    assert scene.num_foreground == 1


def test_limit_takes_the_highest_gradients(scene):
    control = controller(scene, max_foreground=32)
    control.statistics["foreground"]["gradient"][:] = torch.linspace(1, 2, 30)
    control.statistics["foreground"]["count"][:] = 1
    top = scene.foreground.params["colors"][-2:].detach().clone()
    control.step(10)
    assert scene.num_foreground == 32
    torch.testing.assert_close(scene.foreground.params["colors"][-2:].detach().sort(0).values, top.sort(0).values)


def test_reset_clamps_from_above_and_pauses_culling(scene):
    with torch.no_grad():
        scene.foreground.params["opacities"][0] = -3.0  # 0.047, under the cull threshold
    control = controller(scene, reset_at=(0.3,), cull_pause=0.2, cull_opacity=0.06, start=0.31)
    before = scene.foreground.params["opacities"][0].item()
    control.step(30)
    assert scene.foreground.opacities.max().item() == pytest.approx(0.08, abs=1e-6)
    assert scene.foreground.params["opacities"][0].item() == before, "a reset never raises an opacity"
    assert control.step(40)["foreground"].removed == 0
    assert control.step(50)["foreground"].removed == 1


def test_nothing_outside_its_part_of_the_run(scene):
    control = controller(scene, start=0.2, end=0.5)
    assert not control.step(10) and control.step(20) and control.step(40) and not control.step(50)
    assert not controller(scene, enabled=False).step(10)


def test_the_state_follows_the_scene_and_is_plain(scene):
    control = controller(scene)
    control.statistics["foreground"]["gradient"][:] = 1.0
    control.statistics["foreground"]["count"][:] = 1
    control.step(10)
    assert set(control.state) == {"background_extent", "foreground", "background"}
    assert isinstance(control.state["background_extent"], float)
    assert_consistent(control)
