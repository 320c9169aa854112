"""Scores a trained scene, writes side-by-side images and videos: python run_val.py --model 4000"""
from som.commands.main import run

if __name__ == "__main__":
    run("val")
