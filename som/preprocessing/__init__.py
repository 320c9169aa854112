"""From a video to a data set folder: frames, flow, masks, cameras, tracks, depth."""
