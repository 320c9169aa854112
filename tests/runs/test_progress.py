import logging

from som.runs.progress import ProgressLine, format_seconds, shown_messages


def test_lines_come_now_and_then_and_at_the_end_of_a_stage(capfd):
    line = ProgressLine(every_seconds=100.0)
    line("sweep", 0.1)
    line("sweep", 1.0, "3 frames")
    assert capfd.readouterr().err == "sweep: 100 %  3 frames\n"


def test_what_the_library_logs_is_shown_and_the_loggers_are_left_as_they_were(capfd):
    logger = logging.getLogger("som.somewhere")
    with shown_messages():
        logger.info("initial scene: %d Gaussians", 3)
        logger.warning("hardly any parallax")
    logger.info("nobody sees this")
    assert capfd.readouterr().err == "initial scene: 3 Gaussians\nnote: hardly any parallax\n"
    assert not logging.getLogger("som").handlers and logging.getLogger("som").propagate


def test_seconds():
    assert [format_seconds(s) for s in (5, 65, 7384)] == ["0:05", "1:05", "2:03:04"]
