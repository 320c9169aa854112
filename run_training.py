"""Optimises a 4D scene against one video: python run_training.py --work-dir out data:demo"""
from som.commands.main import run

if __name__ == "__main__":
    run("train")
