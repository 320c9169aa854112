"""RAFT: recurrent all-pairs field transforms for optical flow (Teed & Deng, ECCV 2020, arXiv 2003.12039).

The network in both published sizes, the loading of published weights, and the estimator that applies it to images.
"""
