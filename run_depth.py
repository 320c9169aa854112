"""Depth of videos, trained, predicted, scored, fused, swept: python run_depth.py predict --data clip"""
from som.commands.main import run

if __name__ == "__main__":
    run("depth")
