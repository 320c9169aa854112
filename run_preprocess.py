"""Turns a video into a data set folder, or checks one: python run_preprocess.py clip.mp4 --output data/clip"""
from som.commands.main import run

if __name__ == "__main__":
    run("preprocess")
