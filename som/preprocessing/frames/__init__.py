"""A video file or a folder of images becomes the numbered images of a data set folder."""
