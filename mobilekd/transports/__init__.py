"""How a device is reached, one file each; the file name is the name in a profile."""
