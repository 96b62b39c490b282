"""The protocols by which reconstructions of video are compared in print: camera path, video depth, motion masks."""
