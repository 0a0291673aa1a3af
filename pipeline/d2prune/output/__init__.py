"""The format of an output folder: file names, subset file, tars, manifest, and who may write there."""
