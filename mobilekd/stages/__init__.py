"""The stages of a pipeline, one file each; the file name is the name in a pipeline file."""
