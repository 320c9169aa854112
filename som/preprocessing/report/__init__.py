"""One page that shows what preprocessing found, so that a person sees at a glance what is wrong."""

from som.preprocessing.report.write import write_report

__all__ = ["write_report"]
