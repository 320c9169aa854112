"""Scoring a scene: metrics, evaluation against a data set's views, reports and videos.

Importing this package is cheap; ``evaluate``, ``metrics`` and ``videos`` load torch.
"""
